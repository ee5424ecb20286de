import csv
import json

import numpy as np
import pytest
import yaml
from run_folders import read_rows
from scipy import stats

from fewlabels.cli.main import main
from fewlabels.errors import FewLabelsError
from fewlabels.evaluation.bootstrap import ClassScores
from fewlabels.recipe.recipe import load_recipe
from fewlabels.runs.study import run_study, seeds_of
from fewlabels.runs.study_table import (
    StudyRow,
    compare_with_first,
    find_class_intervals,
    format_markdown,
    write_tables,
)

RECIPE = {
    "data": {"source": "digits", "split": "official", "labels": 50},
    "model": {"backbone": "convnet3", "image_size": 24, "backbone_options": {"width": 0.25}},
    "strategy": {"name": "supervised", "labelled": 20, "batch": 30},
    "optimizer": {"name": "adam", "lr": 2e-3},
    "rounds": {"steps_per_epoch": 5},
}


@pytest.fixture
def recipes(tmp_path):
    paths = []
    for name, strategy in [("alone", "supervised"), ("teacher", "mean_teacher")]:
        path = tmp_path / f"{name}.yaml"
        recipe = RECIPE | {"strategy": {**RECIPE["strategy"], "name": strategy}}
        path.write_text(yaml.safe_dump(recipe))
        paths.append(str(path))
    return paths


def test_a_study_runs_what_is_missing_and_compares_in_pairs(recipes, tmp_path, capsys):
    runs = tmp_path / "runs"
    assert main(["study", *recipes, "--seeds", "0-1", "--runs", str(runs)]) == 0
    marks = {p: p.stat().st_mtime_ns for p in runs.glob("*/model/model.safetensors")}
    assert len(marks) == 4
    metrics = runs / "teacher-seed-1" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-9])  # as if it had been stopped in its last line
    assert (
        main(
            [
                "study",
                *recipes,
                "--seeds",
                "0-2",
                "--runs",
                str(runs),
                "--out",
                str(tmp_path / "t2.9"),
            ]
        )
        == 0
    )
    again = {p for p in marks if p.stat().st_mtime_ns != marks[p]}
    assert {p.parts[-3] for p in again} == {"teacher-seed-1"}
    printed = capsys.readouterr().out
    text = (tmp_path / "t2.9.md").read_text()
    assert printed.endswith(text)
    with (tmp_path / "t2.9.csv").open() as file:
        one, two = csv.DictReader(file)
    assert [one[k] for k in ("row", "seeds", "steps", "unlabelled images")] == [
        "alone",
        "3",
        "5",
        "0",
    ]
    assert (two["steps"], two["unlabelled images"]) == ("5", "150")
    assert [row["recipe"] for row in (one, two)] == [
        load_recipe(path, ["seed=0"]).hash for path in recipes
    ]
    ends = [read_rows(runs / f"teacher-seed-{s}")[-1] for s in range(3)]
    assert [float(two[f"seed {s}"]) for s in range(3)] == pytest.approx(
        [100 * e["score"] for e in ends]
    )


def test_a_folder_of_another_recipe_is_not_taken_for_this_one(recipes, tmp_path):
    run_study(recipes[:1], [0], runs=tmp_path, say=str)
    with pytest.raises(FewLabelsError, match="alone-seed-0 is of another recipe"):
        run_study(recipes[:1], [0], ["optimizer.lr=1e-2"], runs=tmp_path, say=str)
    with pytest.raises(FewLabelsError, match="two recipes are called 'alone'"):
        run_study([recipes[0]] * 2, [0], runs=tmp_path, say=str)


def test_the_interval_is_students():
    rng = np.random.default_rng(0)
    first = StudyRow("a", "test error", dict(enumerate(rng.normal(20, 5, 10))))
    second = StudyRow("b", "test error", {s: v - 2 + rng.normal() for s, v in first.scores.items()})
    found = compare_with_first(second.scores, first.scores)
    difference, low, high = found.difference, found.low, found.high
    expected = stats.ttest_rel(list(second.scores.values()), list(first.scores.values()))
    interval = expected.confidence_interval(0.95)
    assert (low, high) == pytest.approx((interval.low, interval.high))
    assert low < difference < high < 0
    alone = compare_with_first(first.scores, first.scores)
    assert alone.difference is None
    assert alone.sd == pytest.approx(np.std(list(first.scores.values()), ddof=1))
    assert f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]" in format_markdown([first, second])


def test_the_table_of_embedders_says_how_far_other_classes_would_move_them(tmp_path):
    rng = np.random.default_rng(0)
    base, queries = rng.uniform(0.3, 0.9, 30), np.full(30, 12)
    rows = []
    for name, more in (("a", 0.0), ("b", 0.03)):
        row = StudyRow(name, "recall@1")
        for seed in range(3):
            own = ClassScores(np.arange(30), queries, base + more + rng.normal(0, 0.005, 30))
            row.by_class[seed], row.scores[seed] = own, 100 * own.mean
        rows.append(row)
    table = format_markdown(rows)
    assert "with other classes [95 %]" in table
    (low, high), none = find_class_intervals(rows[0], rows[0])
    assert none is None
    assert low < rows[0].by_class[0].mean * 100 < high
    assert high - low > 5  # a seed moves the mean by a tenth of a point, other classes by five
    _, (low, high) = find_class_intervals(rows[1], rows[0])
    assert 2.5 < low < 3 < high < 3.5
    write_tables(rows, tmp_path / "t")
    with (tmp_path / "t.csv").open() as file:
        _, second = csv.DictReader(file)
    assert float(second["difference class low"]) == pytest.approx(low)
    # Runs of before this was written have no scores by class.
    del rows[1].by_class[2]
    assert find_class_intervals(rows[1], rows[0]) == (None, None)
    for row in rows:
        row.by_class.clear()
    assert "other classes" not in format_markdown(rows)


def test_seeds():
    assert seeds_of("0-2,7,1") == [0, 1, 2, 7]
    with pytest.raises(FewLabelsError, match="expected numbers such as 0-9"):
        seeds_of("0..9")
    with pytest.raises(FewLabelsError, match="write the smaller number of a range first"):
        seeds_of("5-3")
    with pytest.raises(FewLabelsError, match="--seeds '0-99999999999': expected at most 1,000,000"):
        seeds_of("0-99999999999")


def test_wrong_labels_are_compared_and_an_oracle_is_named(tmp_path):
    recipe = {
        **RECIPE,
        "strategy": {"name": "mean_teacher", "labelled": 20, "batch": 30},
        "discovery": {"name": "confident", "by": "teacher"},
        "rounds": {"steps_per_epoch": 5, "rounds": 2},
    }
    paths = []
    for name, oracle in [("found", False), ("true", True)]:
        paths.append(tmp_path / f"{name}.yaml")
        own = {**recipe, "rounds": {**recipe["rounds"], "oracle": oracle}}
        paths[-1].write_text(yaml.safe_dump(own))
    rows = run_study(paths, [0, 1], runs=tmp_path / "runs", say=str)
    lines = [
        json.loads(line)
        for line in (tmp_path / "runs/found-seed-1/metrics.jsonl").read_text().splitlines()
    ]
    each = [line for line in lines if line["kind"] == "discovery"]
    assert [line["discovered"] for line in each] == [50, 100]
    wrong = sum(line["wrong"] * line["discovered"] for line in each) / 150
    assert rows[0].wrong[1] == pytest.approx(100 * wrong)
    assert [len(values) for values in rows[0].by_round.values()] == [2, 2]
    text = format_markdown(rows)
    assert "| true (ORACLE) |" in text
    assert "| found |" in text
    assert "wrong among the discovered labels" in text
    assert "not a fair study" not in text
    rows[1].steps += 1
    assert "not a fair study" in format_markdown(rows)


def test_choices_are_made_on_validation_images(recipes, tmp_path):
    with pytest.raises(FewLabelsError, match="no image is held out; set data.validation"):
        run_study(recipes[:1], [0], runs=tmp_path / "a", say=str, validation=True)
    told = []
    (row,) = run_study(
        recipes[:1], [0], ["data.validation=100"], tmp_path / "b", told.append, validation=True
    )
    frozen, found = read_rows(tmp_path / "b/alone-seed-0", "evaluation")
    assert row.scores[0] == pytest.approx(100 * found["validation_error"])
    assert row.frozen[0] == pytest.approx(100 * frozen["validation_error"])
    assert not any("test" in text for text in told)


def test_overrides_may_stand_behind_options(recipes, tmp_path, capsys):
    words = [
        "study",
        recipes[0],
        "--seeds",
        "0",
        "--runs",
        str(tmp_path / "r"),
        "rounds.steps_per_epoch=3",
    ]
    assert main(words) == 0
    assert "| 3 | 0 |" in capsys.readouterr().out


def test_out_takes_either_ending_and_refuses_no_name(recipes, tmp_path, capsys):
    words = ["study", recipes[0], "--seeds", "0", "--runs", str(tmp_path / "r"), "--out"]
    assert main([*words, str(tmp_path / "mine.md")]) == 0
    assert sorted(path.name for path in tmp_path.glob("mine*")) == ["mine.csv", "mine.md"]
    assert main([*words, "."]) == 2
    assert "name a file, as in tables/mine" in capsys.readouterr().err


def test_a_run_killed_before_it_wrote_anything_is_taken_up(recipes, tmp_path):
    (tmp_path / "alone-seed-0").mkdir()
    run_study(recipes[:1], [0], runs=tmp_path, say=str)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("alone-")] == [
        "alone-seed-0"
    ]

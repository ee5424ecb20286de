import csv
import json

import numpy as np
import pytest
import yaml
from scipy import stats

from fewlabels.cli import main
from fewlabels.errors import FewLabelsError
from fewlabels.study import Row, markdown, paired, seeds_of, study, table

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
    (runs / "teacher-seed-1" / "metrics.jsonl").write_text(
        "".join((runs / "teacher-seed-1" / "metrics.jsonl").read_text().splitlines(True)[:-1])
    )  # as if it had been stopped before its end
    assert (
        main(
            ["study", *recipes, "--seeds", "0-2", "--runs", str(runs), "--out", str(tmp_path / "t")]
        )
        == 0
    )
    again = {p for p in marks if p.stat().st_mtime_ns != marks[p]}
    assert {p.parts[-3] for p in again} == {"teacher-seed-1"}
    printed = capsys.readouterr().out
    text = (tmp_path / "t.md").read_text()
    assert printed.endswith(text)
    with (tmp_path / "t.csv").open() as file:
        one, two = csv.DictReader(file)
    assert (one["row"], one["seeds"], one["steps"], one["unlabelled images"]) == (
        "alone",
        "3",
        "5",
        "0",
    )
    assert (two["steps"], two["unlabelled images"]) == ("5", "150")
    ends = [
        json.loads((runs / f"teacher-seed-{s}" / "metrics.jsonl").read_text().splitlines()[-1])
        for s in range(3)
    ]
    assert [float(two[f"seed {s}"]) for s in range(3)] == pytest.approx(
        [100 * e["score"] for e in ends]
    )


def test_a_folder_of_another_recipe_is_not_taken_for_this_one(recipes, tmp_path):
    study(recipes[:1], [0], runs=tmp_path, say=str)
    with pytest.raises(FewLabelsError, match="alone-seed-0 is of another recipe"):
        study(recipes[:1], [0], ["optimizer.lr=1e-2"], runs=tmp_path, say=str)
    with pytest.raises(FewLabelsError, match="two recipes are called 'alone'"):
        study([recipes[0]] * 2, [0], runs=tmp_path, say=str)


def test_the_interval_is_students():
    rng = np.random.default_rng(0)
    first = Row("a", "test error", dict(enumerate(rng.normal(20, 5, 10))))
    second = Row("b", "test error", {s: v - 2 + rng.normal() for s, v in first.scores.items()})
    difference, low, high = paired(second, first)
    expected = stats.ttest_rel(list(second.scores.values()), list(first.scores.values()))
    interval = expected.confidence_interval(0.95)
    assert (low, high) == pytest.approx((interval.low, interval.high))
    assert low < difference < high < 0
    assert paired(first, first) is None
    assert table([first, second])[0]["sd"] == pytest.approx(
        np.std(list(first.scores.values()), ddof=1)
    )
    assert f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]" in markdown([first, second])


def test_seeds():
    assert seeds_of("0-2,7,1") == [0, 1, 2, 7]
    with pytest.raises(FewLabelsError, match="expected numbers such as 0-9"):
        seeds_of("0..9")

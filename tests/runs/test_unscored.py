"""Data on which nothing, or nothing that means anything, can be scored: told before training."""

import csv

import pytest
import yaml
from pictures import texture

import fewlabels
from fewlabels.cli.main import main
from fewlabels.errors import DataError
from fewlabels.recipe.recipe import recipe_from
from fewlabels.runs.assemble import make_accelerator
from fewlabels.runs.parts import make_parts, open_metrics

EMBEDDER = {
    "model": {"backbone": "convnet3", "image_size": 16, "backbone_options": {"width": 0.25}},
    "strategy": {"name": "metric", "batch": 8, "per_class": 4},
    "discovery": {"name": "kmeans", "clusters": 2},
    "losses": "multi_similarity",
    "rounds": {"steps_per_epoch": 1},
}
CLASSIFIER = {
    **{key: EMBEDDER[key] for key in ("model", "rounds")},
    "strategy": {"name": "supervised", "batch": 4},
}
UNKNOWN = "no test images of known classes; put them into one folder a class, name a table"


@pytest.fixture
def photos(tmp_path):
    """A folder of images of these names, with a table of these labels."""

    def write(*names, **labels):
        for i, name in enumerate(names):
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            texture(i, 20).save(path)
        if labels:
            with (tmp_path / "photos" / "labels.csv").open("w", newline="") as file:
                lines = [[f"{name}.png", label] for name, label in labels.items()]
                csv.writer(file).writerows([["file", "label"], *lines])
        return {"source": "folder", "path": str(tmp_path / "photos")}

    return write


@pytest.fixture
def begin(tmp_path):
    """What a run says before it trains."""

    def say_before_training(recipe, data, **more):
        recipe, said = recipe_from({**recipe, "data": data}), []
        parts = make_parts(
            recipe, make_accelerator(recipe), tmp_path / "runs", None, said.append, **more
        )
        open_metrics(parts)
        return said

    return say_before_training


def trees(*folders, count=3):
    return [f"{folder}/{i}.png" for folder in folders for i in range(count)]


NOTHING = {
    "flat photos": (EMBEDDER, trees("."), {}, UNKNOWN),
    "all images in one folder": (EMBEDDER, trees("images"), {}, UNKNOWN),
    "one class in a table": (
        EMBEDDER,
        trees("."),
        {"labels": dict.fromkeys("012", "cat")},
        "all test images to be found are of one class, so any model would find them",
    ),
    "one class for the test": (
        EMBEDDER,
        trees("a", "b", "c"),
        {"split": "zero_shot"},
        "all test images to be found are of one class, so any model would find them",
    ),
    "an image a class": (
        EMBEDDER,
        trees("a", "b", count=1),
        {},
        "no two test images are known to be of one class",
    ),
    "a gallery of other classes": (
        EMBEDDER,
        trees("a", "b", "c"),
        {"query": {"classes": "0"}, "gallery": {"classes": "1-2"}},
        "no two test images are known to be of one class",
    ),
    "a test of one class to be found": (
        EMBEDDER,
        trees("a", "b", "c"),
        {"gallery": {"classes": "1"}},
        "all test images to be found are of one class",
    ),
    "a split of training images alone": (
        EMBEDDER,
        [*trees("train/a", "train/b"), "unlabeled/1.png"],
        {"split": "official"},
        "there are no test images; name some with data.test",
    ),
    "all labels given": (
        CLASSIFIER,
        trees("a", "b"),
        {"labels": "all"},
        "the 6 test images of known classes are those that people labelled for training",
    ),
    "a test without labels": (
        CLASSIFIER,
        [*trees("train/a", "train/b"), "test/1.png"],
        {"split": "official", "labels": "all"},
        UNKNOWN,
    ),
}


@pytest.mark.parametrize("case", NOTHING)
def test_why_nothing_will_be_scored_is_said_before_training(case, photos, begin):
    recipe, names, options, sentence = NOTHING[case]
    options = dict(options)
    table = options.pop("labels") if isinstance(options.get("labels"), dict) else {}
    data = {**photos(*names, **table), **options}
    (told,) = [line for line in begin(recipe, data) if "test score" in line]
    assert told.startswith("there will be no test score: ")
    assert sentence in told
    with pytest.raises(DataError, match="recipe: no test score can be compared: ") as refused:
        begin(recipe, data, must_score=True)
    assert sentence in str(refused.value)


def test_nothing_is_said_where_something_is_scored(photos, begin):
    assert len(begin(EMBEDDER, photos(*trees("a", "b")))) == 1
    assert len(begin(CLASSIFIER, {**photos(*trees("a", "b")), "labels": 2})) == 1


def test_a_run_without_a_score_gives_none_and_says_why_again(photos, tmp_path, capsys):
    data = photos(*trees("cat", count=9), **{f"cat/{i}": "cat" for i in range(9)})
    run = fewlabels.train({**EMBEDDER, "data": data}, out=tmp_path / "runs")
    assert run.scores == []
    printed = capsys.readouterr().out
    before, trained = printed.index("there will be no test score"), printed.index("round 1/1")
    assert before < trained < printed.index("nothing was scored: all test images to be found are")
    assert "100.0" not in printed


def test_a_study_does_not_train_what_it_could_not_compare(photos, tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump({**EMBEDDER, "data": photos(*trees("."))}))
    runs = tmp_path / "studies"
    assert main(["study", str(recipe), "--seeds", "0-1", "--runs", str(runs)]) == 2
    assert "no test score can be compared: no test images of known" in capsys.readouterr().err
    assert not runs.exists()


def test_evaluate_refuses_one_class_and_tells_what_was_passed_over(photos, tmp_path, capsys):
    options = dict(EMBEDDER["model"])
    model, place = str(tmp_path / "model"), photos(*trees("a", "b"))["path"]
    fewlabels.Embedder(options.pop("backbone"), embedding_size=8, **options).save_pretrained(model)
    (tmp_path / "photos" / "a" / "x.heic").write_bytes(b"x")
    assert main(["evaluate", model, "--data", place]) == 0
    assert "a/x.heic is passed over: .heic is not read here" in capsys.readouterr().out
    assert main(["evaluate", model, "--data", place, "data.test.classes='1'"]) == 2
    told = capsys.readouterr().err
    assert "nothing can be scored: all test images to be found are" in told
    assert "a/x.heic is passed over" in told


def test_a_split_that_goes_unused_is_said(photos, begin):
    data = photos(*trees("train/a", "train/b", "test/a", "test/b"))
    sentence = "its images are split (test, train), which split: all does not keep: test images may"
    for split in ({}, {"split": "all"}):
        assert any(sentence in line for line in begin(EMBEDDER, data | split))
    chosen = {"train": {"where": {"split": "train"}}, "test": {"where": {"split": "test"}}}
    for split in ({"split": "official"}, chosen):
        assert not any(sentence in line for line in begin(EMBEDDER, data | split))

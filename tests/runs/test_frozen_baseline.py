"""What a run says of its backbone without training, against other code and other runs."""

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import forget_end, read_rows, remove_checkpoints_after
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import fewlabels
from fewlabels import Embedder
from fewlabels.cli.main import main
from fewlabels.evaluation.against_frozen import describe_loss
from fewlabels.models.backbone import make_backbone
from fewlabels.models.load import load_model
from fewlabels.recipe.recipe import load_recipe, recipe_from
from fewlabels.runs.card import make_card
from fewlabels.runs.finished_run import read_run
from fewlabels.runs.frozen_baseline import has_own_images, prepares_otherwise
from fewlabels.runs.study import run_study
from fewlabels.runs.study_table import format_markdown
from fewlabels.runs.training_data import read_training_data
from fewlabels.runs.use_frozen import list_lda_overrides
from fewlabels.training.run_folder import RunFolder

RECIPES = Path(__file__).parents[2] / "recipes"
WIDTH = {"width": 0.25}
CLASSIFIER = {
    "data": {"source": "digits", "split": "official", "labels": 40, "validation": 20},
    "model": {"backbone": "convnet3", "image_size": 16, "backbone_options": WIDTH},
    "strategy": {"name": "mean_teacher", "labelled": 20, "batch": 40},
    "discovery": [{"name": "confident", "by": "teacher"}],
    "weights": {"consistency": 1},
    "optimizer": {"factors": {"student.backbone": 0.1}},
    "rounds": {"steps_per_epoch": 2},
}
EMBEDDER = {
    "data": {"source": "digits", "split": "official", "test": {"classes": "0-3"}},
    "model": {"backbone": "test_resnet", "image_size": 32, "embedding_size": 4},
    "discovery": {"name": "kmeans", "clusters": 12},
    "losses": ["multi_similarity"],
    "evaluation": {"ks": [1]},
    "rounds": {"steps_per_epoch": 2},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def weights(tmp_path):
    """Files of random weights of two backbones, by name."""
    torch.manual_seed(3)
    for name, options in (("convnet3", WIDTH), ("test_resnet", {})):
        state = make_backbone(name, options=options).state_dict()
        torch.save(state, tmp_path / f"{name}.pt")
    return {name: str(tmp_path / f"{name}.pt") for name in ("convnet3", "test_resnet")}


def with_weights(recipe, file):
    return {**recipe, "model": {**recipe["model"], "weights": file}}


def frozen_rows(folder):
    return [row for row in read_rows(folder, "evaluation") if row["model"].startswith("frozen_")]


def encode(recipe, rows, **options):
    """Features of length 1 of digits, as the recipe's source reads them."""
    images = read_training_data(recipe_from(recipe), quiet=True).records.images
    model = recipe["model"]
    embedder = Embedder(
        model["backbone"],
        weights=model["weights"],
        embedding_size=None,
        backbone_options=model.get("backbone_options"),
        **options,
    )
    return embedder.encode([images[int(row)] for row in rows])


def test_a_classifier_stands_beside_scikit_learns_lda_on_the_weights_it_began_with(
    tmp_path, weights, capsys
):
    recipe = with_weights(CLASSIFIER, weights["convnet3"])
    folder = fewlabels.train(recipe, out=tmp_path).folder
    with (folder / "labelled.csv").open() as file:
        parts = {"labelled": [], "validation": []}
        for line in csv.DictReader(file):
            parts[line["part"]].append(int(line["row"]))
    truth = load_digits().target
    test = read_training_data(recipe_from(recipe), quiet=True).split.test
    features = {
        name: encode(recipe, rows, image_size=16) for name, rows in {**parts, "test": test}.items()
    }
    lda = LinearDiscriminantAnalysis("lsqr", shrinkage=0.5, priors=[0.1] * 10)
    lda.fit(features["labelled"], truth[parts["labelled"]])
    errors = [
        1 - lda.score(features[name], truth[rows])
        for name, rows in (("test", test), ("validation", parts["validation"]))
    ]
    (row,) = frozen_rows(folder)
    assert [row["error"], row["validation_error"]] == pytest.approx(errors, abs=0.002)
    assert row["image_size"] == 16
    end = read_rows(folder)[-1]
    assert (end["frozen"], end["frozen_validation"]) == (row["error"], row["validation_error"])
    printed = capsys.readouterr().out
    assert f"LDA on the frozen backbone, 16 px {100 * row['error']:8.2f}" in printed


@pytest.mark.parametrize("pretrain", [None, {"name": "rotation", "epochs": 1}])
def test_where_training_loses_that_is_said_first_with_a_command_that_gives_the_number(
    tmp_path, capsys, pretrain
):
    folder = fewlabels.train({**CLASSIFIER, "pretrain": pretrain}, out=tmp_path).folder
    end = read_rows(folder)[-1]
    lines = capsys.readouterr().out.splitlines()
    after = next(i for i, line in enumerate(lines) if line.startswith("round 2/2")) + 1
    numbers = f"{100 * end['score']:.2f} % against {100 * end['frozen']:.2f} %"
    assert lines[after].startswith(f"training lost: test error {numbers} of LDA on the frozen")
    command = shlex.split(lines[after].rpartition(": ")[2])
    assert command[0] == "fewlabels"
    assert main([*command[1:], "--out", str(tmp_path / "again")]) == 0
    again = read_rows(next((tmp_path / "again").iterdir()))[-1]
    assert again["score"] == pytest.approx(end["frozen"], abs=1e-9)
    assert again["frozen"] == pytest.approx(end["frozen"], abs=1e-9)
    assert (
        "training" not in capsys.readouterr().out.partition("round 1")[2].partition("run f")[0][:40]
    )
    text = make_card([read_run(folder)], load_model(folder / "model"), "lab/model")
    summary = text.partition("\n# model\n")[2].strip()
    assert summary.startswith(f"Training lost: test error {numbers}")
    command = "fewlabels run recipe.yaml strategy=lda model.frozen=true model.head=cosine"
    assert (command in summary) == (pretrain is None)  # its backbone is not pushed
    assert str(tmp_path) not in text
    assert (
        f"| LDA on the frozen backbone, 16 px | test images | {100 * end['frozen']:.2f} |" in text
    )


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_command_is_of_a_good_recipe(path):
    recipe = load_recipe(path, ended=True)
    words = list_lda_overrides(recipe, RunFolder("runs/mine"))
    if recipe.data.labels == "none" or words is None:
        return
    lda = load_recipe(path, words, ended=True)
    assert (lda.strategy.name, lda.discovery, lda.blocks, lda.losses) == ("lda", (), (), ())
    assert lda.pretrain is None
    assert has_own_images(lda) == has_own_images(recipe) or recipe.pretrain


def test_an_embedder_stands_beside_its_backbone_with_the_images_that_that_was_trained_on(
    tmp_path, weights, cache, capsys
):
    recipe = with_weights(EMBEDDER, weights["test_resnet"])
    folder = fewlabels.train(recipe, ["model.crop_pct=1"], out=tmp_path / "runs").folder
    rows = read_training_data(recipe_from(recipe), quiet=True).split.test
    truth, features = load_digits().target[rows], encode(recipe, rows)
    cosines = features @ features.T
    np.fill_diagonal(cosines, -1)
    (row,) = frozen_rows(folder)
    assert row["image_size"] == 160
    right = (truth[cosines.argmax(1)] == truth).mean()
    assert row["recall@1"] == pytest.approx(right, abs=0.02)  # float16 in the store
    (stored,) = cache.rglob("features.bin")
    assert stored.stat().st_size == 2 * features.size
    again = fewlabels.train(recipe, ["seed=1"], out=tmp_path / "runs").folder
    assert frozen_rows(again) == [row]
    np.eye(10, features.shape[1], dtype=np.float16)[truth].tofile(stored)
    again = fewlabels.train(recipe, ["seed=1"], out=tmp_path / "runs").folder
    assert frozen_rows(again)[0]["recall@1"] == 1  # as the store has it, so no image was looked at
    printed = capsys.readouterr().out
    assert f"frozen backbone, 160 px {100 * row['recall@1']:13.1f}" in printed
    said = next(line for line in printed.splitlines() if line.startswith("training lost"))
    code = said.rpartition(": ")[2].replace('"frozen"', repr(str(tmp_path / "frozen")))
    eval(code)  # what a user would paste
    assert main(["evaluate", str(tmp_path / "frozen"), "--data", str(folder / "recipe.yaml")]) == 0
    best = max(r["recall@1"] for r in read_rows(folder, "evaluation") if "frozen" in r["model"])
    assert f"{100 * best:.2f}" in capsys.readouterr().out


def test_a_run_that_goes_on_scores_the_frozen_backbone_no_second_time(tmp_path, capsys):
    recipe = {**CLASSIFIER, "discovery": None, "rounds": {"steps_per_epoch": 2, "rounds": 2}}
    folder = fewlabels.train(recipe, out=tmp_path).folder
    whole = read_rows(folder)
    forget_end(folder)
    remove_checkpoints_after(folder, 2)
    fewlabels.train(resume=folder)
    assert len(frozen_rows(folder)) == 1
    end = read_rows(folder)[-1]
    assert {k: v for k, v in end.items() if k != "minutes"} == {
        k: v for k, v in whole[-1].items() if k != "minutes"
    }
    assert capsys.readouterr().out.count("training lost") == 2


@pytest.mark.slow
def test_two_processes_say_the_same_of_it(weights, in_one_and_two_processes):
    for recipe, file in ((CLASSIFIER, "convnet3"), (EMBEDDER, "test_resnet")):
        one, two = in_one_and_two_processes(recipe_from(with_weights(recipe, weights[file])))
        assert len(frozen_rows(one)) == 1
        assert frozen_rows(one)[0] == pytest.approx(frozen_rows(two)[0], abs=1e-6)


@pytest.mark.parametrize("changed", [{"before": False}, {}])
def test_who_wants_no_scores_before_training_has_none(tmp_path, changed, capsys):
    recipe = {**CLASSIFIER, "discovery": None, "evaluation": changed}
    folder = fewlabels.train(recipe, out=tmp_path).folder
    assert bool(frozen_rows(folder)) == ("before" not in changed)
    assert ("frozen" in read_rows(folder)[-1]) == ("before" not in changed)


def test_a_cache_that_cannot_be_written_is_told_and_the_run_goes_on(
    tmp_path, weights, cache, capsys
):
    cache.write_text("a file")
    recipe = with_weights(EMBEDDER, weights["test_resnet"])
    folder = fewlabels.train(recipe, out=tmp_path / "runs").folder
    assert not frozen_rows(folder)
    said = capsys.readouterr().out
    assert "the frozen backbone is not scored beside this run" in said
    assert "set FEWLABELS_CACHE to a folder" in said


def test_whose_images_a_backbone_sees(weights):
    own = recipe_from(with_weights(EMBEDDER, weights["test_resnet"]))
    assert has_own_images(own)
    assert not has_own_images(recipe_from(EMBEDDER))  # random weights
    scratch = with_weights({**EMBEDDER, "model": CLASSIFIER["model"]}, weights["convnet3"])
    assert not has_own_images(recipe_from(scratch))  # of nobody who published any
    model = Embedder("test_resnet", image_size=32)
    assert prepares_otherwise(own, model)
    same = recipe_from(with_weights(EMBEDDER, weights["test_resnet"]), ["model.image_size=160"])
    assert not prepares_otherwise(same, Embedder("test_resnet", image_size=160))


def test_a_loss_is_claimed_only_where_the_test_can_tell():
    def end(score, tested=2485, **more):
        words = {"measure": "test error", "frozen": 0.4030, "frozen_model": "frozen_lda"}
        return {**words, "score": score, "tested": tested, "frozen_size": 224, **more}

    assert describe_loss([end(0.4030)]) is None
    assert describe_loss([end(0.30)]) is None
    assert describe_loss([end(float("nan"))]) is None
    assert describe_loss([{"measure": "test error", "score": 0.9}]) is None  # of a run of before
    near = describe_loss([end(0.4075)])
    assert near.startswith("training did not win: test error 40.75 % against 40.30 % of LDA")
    assert near.endswith("which 2,485 test images do not tell apart")
    assert describe_loss([end(0.45)]).startswith("training lost: test error 45.00 %")
    assert describe_loss([end(0.45, tested=50)]).startswith("training did not win")
    assert "47.50 % against 40.30 %" in describe_loss([end(0.45), end(0.5)])
    recall = {"measure": "recall@1", "frozen_model": "frozen_own"}
    assert describe_loss([end(0.9, **recall)]) is None
    assert "recall@1 30.0 % against 40.3 % of the frozen" in describe_loss([end(0.3, **recall)])


def test_a_study_has_a_column_of_it(tmp_path):
    path = tmp_path / "digits.yaml"
    path.write_text(recipe_from({**CLASSIFIER, "name": "digits", "discovery": None}).to_yaml())
    (row,) = run_study([path], [0, 1], runs=tmp_path / "runs")
    ends = [read_rows(tmp_path / "runs" / f"digits-seed-{s}")[-1] for s in (0, 1)]
    head, _, line, *_ = format_markdown([row]).splitlines()
    cells = dict(zip(head.split("|"), line.split("|"), strict=True))
    mean = 100 * np.mean([end["frozen"] for end in ends])
    assert cells[" LDA on the frozen backbone "].strip() == f"{mean:.2f}"

"""Runs on kept features of a frozen backbone: the same strategies, a whole model at the end."""

import json

import numpy as np
import pytest
from run_folders import forget_end, read_rows, remove_checkpoints_after

import fewlabels
from fewlabels.errors import FewLabelsError, RecipeError
from fewlabels.evaluation.classification import error_rate
from fewlabels.models.load import load_model
from fewlabels.recipe.recipe import recipe_from
from fewlabels.registry.build import build_component
from fewlabels.runs import frozen_features
from fewlabels.training.run_folder import RunFolder

DATA = {"source": "digits", "labels": 40, "validation": 50, "cached_views": 2}
RECIPE = {
    "name": "frozen",
    "data": DATA,
    "model": {"backbone": "convnet3", "image_size": 16, "frozen": True, "head": "mlp", "hidden": 8},
    "strategy": {"name": "supervised", "labelled": 8},
    "views": [{"name": "pad_and_crop", "pad": 2}],
    "rounds": {"rounds": 2, "steps_per_epoch": 3},
    "train": {"checkpoint_every": 1, "keep_checkpoints": 99, "log_every": 1},
}
METRIC = {
    "data": {**DATA, "labels": "none", "validation": 0},
    "strategy": {"name": "metric", "batch": 8, "per_class": 2, "memory": "all"},
    "discovery": {"name": "kmeans", "clusters": 5},
    "losses": "multi_similarity",
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def train(tmp_path, *overrides, **more):
    return fewlabels.train({**RECIPE, **more}, list(overrides), out=tmp_path).folder


def read_weights(folder):
    return (RunFolder(folder).model / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "strategy",
    ["ict", "lmcs", "mean_teacher", "mixmatch", "mixup", "pi_model", "pseudo_label", "snowball",
     "temporal_ensembling", "vat", "lda", "nearest_mean"],
)  # fmt: skip
def test_every_classifier_strategy_trains_on_kept_features(tmp_path, strategy):
    discovery = {"name": "confident", "by": "student"}
    more = {"discovery": discovery} if strategy in ("snowball", "lmcs", "lda") else {}
    folder = train(tmp_path, "rounds.rounds=1", strategy=strategy, **more)
    errors = [row["error"] for row in read_rows(folder) if row["kind"] == "evaluation"]
    assert 0 < errors[-1] < 1


def test_an_embedder_trains_on_kept_features(tmp_path):
    folder = train(tmp_path, **METRIC)
    rows = [row for row in read_rows(folder) if row["kind"] == "evaluation"]
    # The frozen backbone is without the head, trained or not.
    told = {row["model"]: row["recall@1"] for row in rows}
    assert told.keys() == {"frozen", "untrained", "trained"}
    assert len(set(told.values())) == 3


def test_the_saved_model_is_whole_and_answers_as_the_run_did(tmp_path):
    folder = train(tmp_path, "strategy=lda")
    model = load_model(RunFolder(folder).model)
    records = build_component("sources", "digits", {}).load()
    rows = np.flatnonzero(records.columns["split"] == "test")
    found = model.predict([records.images[i] for i in rows])
    told = [row["error"] for row in read_rows(folder) if row["kind"] == "evaluation"][-1]
    assert error_rate(found, records.truth[rows]) == pytest.approx(told, abs=2.5 / len(rows))


def test_a_second_run_passes_nothing_through_the_backbone(tmp_path, monkeypatch, cache):
    first = read_weights(train(tmp_path / "one"))
    sizes = {file.parent.name: file.stat().st_size for file in cache.rglob("features.bin")}
    assert sizes["plain"] // 1797 == sizes["0"] // 1150 == sizes["1"] // 1150 == 2 * 128

    def refuse(*_):
        raise AssertionError("the backbone was used")

    monkeypatch.setattr(frozen_features, "pool_features", refuse)
    assert read_weights(train(tmp_path / "two")) == first
    with pytest.raises(AssertionError, match="the backbone"):
        train(tmp_path / "three", "views.0.pad=1")


def test_features_are_those_of_the_image_alone(tmp_path, monkeypatch):
    """Computed in other batches and with other images, views are the same to the last bit."""
    first = train(tmp_path / "one", "seed=1")
    monkeypatch.setattr(frozen_features, "BATCH", 7)
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "other"))
    second = train(tmp_path / "two", "seed=1")
    one, two = (
        [row["loss"] for row in read_rows(folder) if row["kind"] == "train"]
        for folder in (first, second)
    )
    assert np.allclose(one, two, rtol=1e-3)


def test_a_stopped_run_ends_as_if_it_had_not_been(tmp_path):
    folder = train(tmp_path, strategy={"name": "mixmatch", "labelled": 8, "batch": 8})
    whole = read_weights(folder)
    remove_checkpoints_after(folder, 4)
    forget_end(folder)
    fewlabels.train(resume=folder)
    assert read_weights(folder) == whole


def test_two_processes_draw_the_views_that_one_draws(in_one_and_two_processes):
    one, two = in_one_and_two_processes(recipe_from({**RECIPE, "name": ""}))
    losses = [
        [row["loss"] for row in read_rows(folder) if row["kind"] == "train"]
        for folder in (one, two)
    ]
    assert np.allclose(*losses, rtol=1e-3)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"blocks": {"name": "cbam", "after": "stage1"}}, "blocks=[]"),
        ({"pretrain": "rotation"}, "pretrain=null"),
        (
            {
                "model": {
                    **RECIPE["model"],
                    "backbone": "convnet13",
                    "backbone_options": {"heads": 2},
                }
            },
            "set heads: 1",
        ),
        ({"model": {**RECIPE["model"], "hidden": 0}}, "hidden"),
        ({"data": {**DATA, "cached_views": 0}}, "cached_views"),
    ],
)
def test_what_a_frozen_backbone_cannot_have_is_refused(tmp_path, more, says):
    with pytest.raises(RecipeError, match=says.replace("[", r"\[")):
        train(tmp_path, **more)


def test_pairs_of_parts_of_images_are_refused_before_any_is_matched(tmp_path):
    more = {**METRIC, "strategy": {"name": "tac_ccl", "batch": 8, "per_class": 2, "pairs": 4}}
    more |= {"losses": "contrastive_clustering"}
    with pytest.raises(FewLabelsError, match="'matching' finds pairs of parts"):
        train(tmp_path, **{**more, "discovery": ["kmeans", "matching"]})


def test_the_recipe_of_a_run_is_one_that_can_be_run_again(tmp_path):
    folder = train(tmp_path, "strategy=nearest_mean")
    assert json.loads((RunFolder(folder).model / "config.json").read_text())["head"] == "mlp"
    again = fewlabels.train(RunFolder(folder).recipe, out=tmp_path / "again").folder
    assert read_weights(again) == read_weights(folder)

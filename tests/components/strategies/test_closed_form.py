"""Strategies in closed form: the layer is that of plain equations, its softmax a probability."""

import csv

import numpy as np
import pytest
import torch
from run_folders import read_rows

import fewlabels
from fewlabels.errors import DataError
from fewlabels.models.load import load_model
from fewlabels.ops.linear_rules import fit_lda, fit_nearest_mean, measure_moments
from fewlabels.recipe.recipe import recipe_from
from fewlabels.registry.build import build_component
from fewlabels.training.run_folder import RunFolder

RECIPE = {
    "name": "closed",
    "data": {"source": "digits", "labels": 60},
    "model": {"backbone": "convnet3", "image_size": 16, "frozen": True, "head": "root"},
    "strategy": "lda",
    "evaluation": {"before": False, "every": 1},
}
DISCOVERY = {"name": "by_prediction", "by": "student", "mass": "equal", "score": "margin"}
DISCOVERY |= {"relabel": True, "balance": True}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def read_features(model, rows, records):
    found = []
    for start in range(0, len(rows), 256):
        images = [model.prepare_image(records.images[i]) for i in rows[start : start + 256]]
        found.append(model(torch.stack(images)).features.detach().numpy())
    return np.concatenate(found)


@pytest.mark.parametrize("name", ["lda", "nearest_mean"])
def test_the_saved_layer_is_the_rule_of_the_given_labels(tmp_path, name):
    folder = fewlabels.train(RECIPE, [f"strategy={name}"], out=tmp_path).folder
    model = load_model(RunFolder(folder).model)
    records = build_component("sources", "digits", {}).load()
    with RunFolder(folder).labelled.open() as stream:
        given = np.array([int(line["row"]) for line in csv.DictReader(stream)])
    tests = np.flatnonzero(records.columns["split"] == "test")[:200]
    features, others = (read_features(model, rows, records) for rows in (given, tests))
    fit = fit_lda if name == "lda" else fit_nearest_mean
    rule = fit(measure_moments(features, records.truth[given], 10))
    found = model.predict([records.images[i] for i in tests])
    assert (found.argmax(1) == rule.score_features(others).argmax(1)).mean() > 0.99
    right = found.argmax(1) == records.truth[tests]
    assert abs(right.mean() - found.max(1).mean()) < 0.2  # raw scores are nearly all 1 or all .1


def test_discovery_in_even_rounds_labels_all_and_helps(tmp_path):
    """Ten seeds are a study; one is a test that the parts are wired as they should be."""
    rounds = {"rounds": 3, "growth": "even"}
    folder = fewlabels.train({**RECIPE, "discovery": DISCOVERY, "rounds": rounds}, out=tmp_path)
    rows = read_rows(folder.folder)
    counts = [row["discovered"] for row in rows if row["kind"] == "discovery"]
    assert counts == [380, 760, 1140]
    errors = [row["error"] for row in rows if row["kind"] == "evaluation"]
    assert errors[-1] < errors[0] - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["lda", "fine_tune"])
def test_two_processes_compute_the_layer_of_one(in_one_and_two_processes, strategy):
    recipe = {**RECIPE, "name": "", "strategy": strategy, "rounds": {"steps_per_epoch": 2}}
    found = in_one_and_two_processes(recipe_from(recipe))
    weights = [load_model(RunFolder(folder).model).state_dict() for folder in found]
    assert torch.allclose(*(each["backbone.head.fc.weight"] for each in weights), rtol=1e-4)


@pytest.mark.parametrize("strategy", ["lda", "fine_tune"])
def test_a_backbone_that_ends_in_no_linear_layer_is_told_what_to_set(tmp_path, strategy):
    model = {"backbone": "convnet13", "image_size": 32}
    with pytest.raises(DataError, match="set model.head: root"):
        fewlabels.train({**RECIPE, "model": model, "strategy": strategy}, out=tmp_path)


TUNED = {**RECIPE, "model": {**RECIPE["model"], "frozen": False}, "rounds": {"steps_per_epoch": 4}}


@pytest.mark.parametrize("average", ["null", "{end: 0.9}"])
def test_fine_tuning_begins_with_the_answer_of_lda(tmp_path, average):
    """A rate of nearly nothing leaves it; a real one moves it."""
    answers = []
    options = f"labelled: 16, average: {average}"
    for strategy, rate in (("lda", 1), (f"{{name: fine_tune, {options}}}", 1e-12)):
        overrides = [f"strategy={strategy}", f"optimizer.lr={rate}", f"name=n{rate}"]
        folder = fewlabels.train(TUNED, overrides, out=tmp_path).folder
        answers.append(load_model(RunFolder(folder).model).state_dict()["backbone.head.fc.weight"])
    assert torch.allclose(*answers, atol=1e-4)
    overrides = [f"strategy={{name: fine_tune, {options}}}", "optimizer.lr=1e-3"]
    folder = fewlabels.train(TUNED, overrides, out=tmp_path).folder
    moved = load_model(RunFolder(folder).model).state_dict()["backbone.head.fc.weight"]
    assert not torch.allclose(moved, answers[0], atol=1e-4)

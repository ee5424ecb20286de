"""The recipes of chapter 3: what the master is, how long it learns, and what its terms weigh."""

from pathlib import Path

import numpy as np
import pytest
import torch
from timm import create_model

from fewlabels.components.strategies.lmcs import LMCS
from fewlabels.contracts.ramp import Ramp
from fewlabels.models.classifier import Classifier
from fewlabels.models.composition import Composition
from fewlabels.recipe.recipe import load_recipe
from fewlabels.registry import backbones
from fewlabels.runs.build import build_spec
from fewlabels.training.round_schedule import RoundSchedule

RECIPES = Path(__file__).parents[2] / "recipes"
FULL = sorted(RECIPES.glob("lmcs_*.yaml"))
ALL = [
    *FULL,
    *sorted(RECIPES.glob("studies/*lmcs*.yaml")),
    *sorted(RECIPES.glob("studies/table_3.*/*")),
]


def load(path):
    return load_recipe(path, ["model.weights=null"])  # they may not be here


def lmcs_recipes():
    for path in ALL:
        recipe = load(path)
        if recipe.strategy.name == "lmcs":
            yield path, recipe


def schedule_of(recipe):
    first = recipe.rounds.discover_every if recipe.discovery else 0
    return RoundSchedule(**recipe.rounds.model_dump(), first=first)


def test_no_master_of_a_recipe_is_an_affine_map():
    seen = set()
    for path, recipe in lmcs_recipes():
        model, layer = recipe.model, recipe.strategy.options["layer"]
        key = (model.backbone, str(model.backbone_options), str(layer))
        if key not in seen:
            seen.add(key)
            sizes = {"backbone_options": model.backbone_options, "image_size": model.image_size}
            student = Classifier(model.backbone, classes=["a", "b"], **sizes)
            assert not Composition(student, layer).affine, path
    assert len(seen) >= 4


def test_a_composition_has_200_steps_or_more():
    for path, recipe in lmcs_recipes():
        steps = recipe.strategy.options["composition_epochs"] * recipe.rounds.steps_per_epoch
        assert steps >= 200, path


def test_consistency_weighs_as_much_as_mixmatchs_own_squared_error_and_cross_entropy_little():
    for term, weight in {
        "consistency": 75.0,
        "discrimination": 0.1,
        "master_supervised": 0.1,
    }.items():
        assert LMCS.weights[term] == Ramp(end=weight)
    for path, recipe in lmcs_recipes():
        own = {**LMCS.weights, **recipe.weights}
        height = {name: getattr(weight, "end", weight) for name, weight in own.items()}
        assert height["consistency"] >= 75, path
        assert height["discrimination"] == height["master_supervised"] == 0.1, path
        if path in FULL:
            assert height["consistency"] == height["unlabelled"], path


def test_all_discover_through_the_same_network_and_with_the_same_balance():
    found = {
        (spec.options["by"], spec.options["balance"])
        for _, recipe in lmcs_recipes()
        for spec in recipe.discovery
    }
    assert len(found) == 1


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_table_3_8_labels_four_times_as_many_once_and_the_student_learns_them(data):
    paths = sorted(RECIPES.glob(f"studies/table_3.8/{data}_*.yaml"))
    assert len(paths) == 6
    for path in paths:
        recipe = load(path)
        if not recipe.discovery:
            continue
        plan, given = schedule_of(recipe), recipe.data.labels
        labels = np.full(100 * given, -1)
        labels[:given] = 0
        known, counts, students = labels >= 0, [], []
        for index in range(plan.total):
            before = labels.copy()
            if plan.begins_with_discovery(index):
                counts.append(plan.label_budget(labels, known))
                labels[np.flatnonzero(labels < 0)[: counts[-1]]] = 0
                students.append((index, int((before >= 0).sum())))
        assert counts[0] == 4 * given
        assert not any(counts[1:])
        (arrives,) = [index for index, count in students if count == 5 * given][:1]
        assert arrives <= plan.total * 2 / 3  # a third of the steps is left for the student


@pytest.mark.parametrize("path", ["table_3.8/cifar10_confined_max", "table_3.10/cifar10_full"])
def test_discovery_on_cifar10_begins_no_earlier_than_where_its_errors_were_measured(path):
    recipe = load(RECIPES / f"studies/{path}.yaml")
    plan = schedule_of(recipe)
    assert sum(map(plan.count_epochs, range(plan.first))) * plan.steps_per_epoch >= 200


def test_every_label_of_the_full_method_on_digits_reaches_the_student():
    recipe = load(RECIPES / "studies/table_3.10/digits_full.yaml")
    plan, given, labelled, of_student = schedule_of(recipe), recipe.data.labels, 0, []
    labelled = before = given
    for index in range(plan.total):
        if plan.begins_with_discovery(index):
            before = labelled
            labels = np.r_[np.zeros(labelled, int), np.full(1200 - labelled, -1)]
            labelled += plan.label_budget(labels, np.arange(1200) < given)
        of_student.append(before)
    assert of_student[-1] == labelled == 10 * given


@pytest.mark.parametrize("name", ["convnet13", "shakeshake26_2x96d"])
def test_norms_of_mixmatchs_networks_span_as_many_steps_as_its_average(name):
    backbones.get(name)
    momenta = lambda **options: {  # noqa: E731
        norm.momentum
        for norm in create_model(name, width=0.1, **options).modules()
        if isinstance(norm, torch.nn.BatchNorm2d)
    }
    assert momenta() == {0.1}
    assert momenta(norm_momentum=0.001) == {0.001}
    for path in [*FULL, *RECIPES.glob("snowball_mixmatch*.yaml")]:
        recipe = load(path)
        if recipe.model.backbone == name:
            assert recipe.model.backbone_options["norm_momentum"] == 0.001, path


def test_a_discovery_of_each_recipe_can_be_built():
    for _, recipe in lmcs_recipes():
        for spec in recipe.discovery:
            build_spec("discovery", spec)

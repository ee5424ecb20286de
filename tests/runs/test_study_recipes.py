"""The committed recipes of chapters 2 to 5, and that the rows of a study may be compared."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from timm import create_model

from fewlabels.models.classifier import Classifier
from fewlabels.models.composition import Composition
from fewlabels.recipe.recipe import load_recipe
from fewlabels.registry import backbones
from fewlabels.training.optimizers import TICKS, make_scheduler
from fewlabels.training.round_schedule import RoundSchedule

RECIPES = Path(__file__).parents[2] / "recipes"
DATA = ("digits", "cifar10", "grocery")
STUDIES = sorted(
    {
        (path.parent, next((data for data in DATA if path.stem.startswith(data)), ""))
        for path in RECIPES.glob("studies/*/*.yaml")
    }
)


def steps(recipe, images=0):
    if recipe.strategy.name == "lda":  # which has no steps
        return 0
    first = recipe.rounds.discover_every if recipe.discovery else 0
    plan = RoundSchedule(**recipe.rounds.model_dump(), first=first)
    epoch = recipe.rounds.steps_per_epoch or images // recipe.strategy.options["batch"]
    return sum(plan.count_epochs(i) for i in range(plan.total)) * epoch


@pytest.mark.parametrize(
    ("folder", "data"), STUDIES, ids=[f"{f.name}-{data}" for f, data in STUDIES]
)
def test_rows_of_a_study_train_as_many_steps_on_as_many_images_and_share_all_else(folder, data):
    paths = sorted(folder.glob(f"{data}*.yaml"))
    rows = [load_recipe(path, ["model.weights=null"]) for path in paths]  # they may not be here
    assert len(rows) > 1
    assert len({steps(row) for row in rows}) == 1
    sizes = ("batch", "labelled", "per_class")
    batches = {tuple(row.strategy.options.get(size) for size in sizes) for row in rows}
    assert len(batches) == 1
    for row in rows[1:]:
        differ = {
            key
            for key in {**row.resolved, **rows[0].resolved}
            if key != "name" and row.resolved.get(key) != rows[0].resolved.get(key)
        }
        parts = {"losses", "blocks", "optimizer"}
        retrieval = {"table_4.4": parts, "figure_4.5": {"model"}, "table_5.5": parts}
        more = retrieval.get(folder.name, parts if folder.name.startswith("table_5.4") else set())
        assert differ <= {"strategy", "discovery", "weights", "rounds", "pretrain", *more}
        for key, free in (("optimizer", "factors"), ("model", "embedding_size")):
            held = [{**r.resolved[key], free: None} for r in (row, rows[0])]
            assert held[0] == held[1]  # but for the rates of blocks, the size of the embedding
        assert differ  # two rows that are the same would be compared in vain


def test_each_row_of_table_4_4_adds_one_thing_to_the_row_before():
    names = ("baseline", "ccl", "two_views", "cbam", "similarity", "tac", "cross_image")
    folder = RECIPES / "studies/table_4.4"
    rows = [load_recipe(folder / f"grocery_{n}.yaml", ["model.weights=null"]) for n in names]
    losses = [[loss.name for loss in row.losses] for row in rows]
    blocks = [[block.name for block in row.blocks] for row in rows]
    seen = [
        2 if r.strategy.options.get("metric_on") == "both" else r.strategy.options.get("views")
        for r in rows
    ]
    assert losses[1] == [*losses[0], "contrastive_clustering"]
    assert losses[1] == losses[2] == losses[3]
    assert seen == [1, 1, 2, 2, 2, 2, 2]
    assert blocks == [[], [], [], *[["cbam"]] * 4]
    assert set(losses[4]) - set(losses[3]) == {"feature_similarity", "attention_consistency"}
    free, tac, pairs = rows[4:]
    assert free.weights["attention_consistency"] == 0  # its control, where attention is only logged
    without = {k: v for k, v in free.resolved["weights"].items() if k != "attention_consistency"}
    assert {**free.resolved, "weights": without, "name": ""} == {**tac.resolved, "name": ""}
    assert pairs.strategy.options["pairs"] > 0
    assert [d.name for d in pairs.discovery] == ["kmeans", "matching"]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("snowball_*.yaml")), ids=lambda p: p.stem)
def test_full_scale_recipes_name_networks_that_can_be_made(path):
    recipe = load_recipe(path)
    name, options = recipe.model.backbone, recipe.model.backbone_options
    backbones.get(name)
    classes = 100 if "cifar100" in path.stem else 10
    model = create_model(name, num_classes=classes, **options)
    images = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}[recipe.source.name]
    assert f"{steps(recipe, images):,} steps" in path.read_text()
    if "mixmatch" not in path.stem:
        assert options["heads"] == 2
        wanted = {"convnet13": 3_127_208, "shakeshake26_2x96d": 26_197_316}[name]
        wanted += 2 * (classes - 10) * (model.num_features + (2 if name == "convnet13" else 1))
        assert sum(p.numel() for p in model.parameters()) == wanted
    assert recipe.rounds.growth == "double"
    assert recipe.rounds.generations == 3
    if "mixmatch" in path.stem:
        assert (recipe.optimizer.lr, recipe.optimizer.decay) == (2e-3, "kernels")
        epochs = steps(recipe) // recipe.rounds.steps_per_epoch
        assert epochs * 1024 == 1_048_576
        assert recipe.strategy.options["unlabelled"] == "rest"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("lmcs_*.yaml")), ids=lambda p: p.stem)
def test_full_scale_recipes_of_lmcs_are_the_texts(path):
    recipe = load_recipe(path)
    text = path.read_text()
    name, options = recipe.model.backbone, recipe.model.backbone_options
    classes = 100 if "cifar100" in path.stem else 10
    model = Classifier(name, classes=[str(i) for i in range(classes)], backbone_options=options)
    wanted = {"wrn28_2": 1_467_610, "convnet13": 3_125_908}[name]
    wanted += (classes - 10) * (model.feature_size + (2 if name == "convnet13" else 1))
    assert sum(p.numel() for p in model.parameters()) == wanted
    layer = recipe.strategy.options["layer"]
    master = Composition(model, layer)
    assert master.layer == {"wrn28_2": "stages.1", "convnet13": "block2"}[name]
    assert not master.affine
    assert f"{steps(recipe):,} steps" in text
    rounds = recipe.rounds
    assert rounds.epochs_per_round == 10
    whole = (rounds.discover_every + rounds.rounds) * rounds.steps_per_epoch
    assert f"{whole * recipe.strategy.options['composition_epochs']:,} of the compositions" in text
    assert rounds.rounds // rounds.discover_every >= 4  # 2, 4, 8 and 10 times the labels
    assert rounds.discover_every >= 2  # else the look-ahead reaches nobody
    images = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}[recipe.source.name]
    counts = [int(n) for n in re.findall(r"\d+", text.split("data.labels=")[1].splitlines()[0])]
    assert max(counts) * rounds.limit < images  # some stay unlabelled


def rates(recipe):
    """The mean rate of each round as a share of the largest of the run, and its share that falls."""
    first = recipe.rounds.discover_every if recipe.discovery else 0
    plan = RoundSchedule(**recipe.rounds.model_dump(), first=first)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    found = []
    for index in range(plan.total):
        before, whole = plan.epochs_between_restarts(index)
        scheduler = make_scheduler(optimizer, **recipe.schedule.model_dump(), epochs=whole)
        epochs, each = plan.count_epochs(index), []
        for share in np.linspace(0, 1, 201):
            if scheduler is not None:
                scheduler.step_update(round((before + share * epochs) * TICKS))
            each.append(optimizer.param_groups[0]["lr"])
        falls = before + epochs - (whole - recipe.schedule.final_epochs)
        found.append((np.mean(each), min(1, max(0, falls / epochs))))
    return found


CHAPTER_2 = [
    *RECIPES.glob("snowball_*.yaml"),
    *RECIPES.glob("studies/*snowball.yaml"),
    *RECIPES.glob("studies/table_2.*/*.yaml"),
    *RECIPES.glob("studies/figure_2.*/*.yaml"),
    *RECIPES.glob("few_labels*.yaml"),
]


@pytest.mark.parametrize("path", sorted(CHAPTER_2), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_the_rate_is_whole_while_labels_arrive(path):
    """A label that comes when the rate is nearly 0 teaches nothing, nor can one be unlearnt.

    It falls within the round of the last discovery, whose labels have a quarter of it or more.
    """
    recipe = load_recipe(path, ["model.weights=null"])
    if recipe.discovery:
        *before, (mean, falls) = rates(recipe)[1:]
        assert all(rate > 0.99 and share == 0 for rate, share in before)
        assert mean == pytest.approx(1 - falls + 0.2507 * falls, abs=0.005)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("snowball_*.yaml")), ids=lambda p: p.stem)
def test_full_scale_snowball_follows_its_sources(path):
    recipe = load_recipe(path)
    options, images = recipe.model.backbone_options, {"cifar10": 50_000, "cifar100": 50_000}
    if "mixmatch" in path.stem:  # MixMatch's code: norms span as many steps as the average
        norms = create_model(recipe.model.backbone, **options).modules()
        momenta = {m.momentum for m in norms if isinstance(m, torch.nn.BatchNorm2d)}
        assert momenta == {0.001}
        assert (recipe.model.mean, recipe.model.std) == ([0.5] * 3, [0.5] * 3)  # pixels in [-1, 1]
        return
    batch = recipe.strategy.options["batch"]
    steps = images.get(recipe.source.name, 73_257) // batch
    if recipe.model.backbone == "convnet13":
        assert recipe.schedule.warmup_epochs * steps == pytest.approx(40_000, abs=steps)
        assert "supervised" not in recipe.weights  # Adam, and 100 to 1
    else:  # cross-entropy is summed over 31 labelled images and divided by all 128
        assert recipe.weights["supervised"] == 31 / 128
        assert recipe.strategy.options["labelled"] + batch == 128
    if recipe.source.name == "svhn":  # the text: zero mean and unit variance
        assert recipe.model.mean[0] < 0.45 < recipe.model.mean[2]
        assert max(recipe.model.std) < 0.21

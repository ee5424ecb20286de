"""Chapter 5's recipes: long enough at their rates, a bank that follows, and a SAN that can wake."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fewlabels.recipe.recipe import load_recipe
from fewlabels.training.optimizers import TICKS, make_optimizer, make_scheduler

RECIPES = Path(__file__).parents[2] / "recipes"
IMAGES = {"cub200": 5_864, "cars196": 8_054, "sop": 59_551, "inshop": 25_882}
FULL = sorted(RECIPES.glob("*san*.yaml"))
STUDY = RECIPES / "studies" / "table_5.4_supervised"


def course(recipe):
    """Optimiser steps of an epoch on true labels, and the learning rate in the midst of each epoch."""
    epochs = recipe.rounds.rounds * recipe.rounds.epochs_per_round
    optimizer = make_optimizer([("w", nn.Parameter(torch.ones(1)))], "sgd", recipe.optimizer.lr)
    scheduler = make_scheduler(optimizer, epochs=epochs, **recipe.schedule.model_dump())
    rates = []
    for epoch in range(epochs):
        if scheduler is not None:
            scheduler.step_update(epoch * TICKS + TICKS // 2)
        rates.append(optimizer.param_groups[0]["lr"])
    return IMAGES[recipe.source.name] // recipe.strategy.options["batch"], rates


@pytest.mark.parametrize("path", FULL, ids=lambda p: p.stem)
def test_sans_settings_are_those_that_do_not_sleep(path):
    recipe = load_recipe(path)
    (block,) = recipe.blocks
    options = block.options
    assert (options["predictor"], options["normalise"], options["scale"]) == (
        "attention",
        "softmax",
        15.0,
    )
    assert options["after"] in ("inception4e", "inception_4d", "layer3")  # before the last halving
    place = f"student.backbone.{options['after']}.block"
    assert recipe.optimizer.no_decay == [place]
    assert recipe.optimizer.lr * recipe.optimizer.factors[place] == pytest.approx(3e-3)
    weights = {**dict.fromkeys(("san.entropy", "san.correlation", "san.coherence"))}
    assert {term: recipe.weights.get(term) for term in weights} == {
        "san.entropy": 0,
        "san.correlation": None,  # the block's own
        "san.coherence": 0,
    }


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("san_cub", 0.09),
        ("san_cars", 0.4),
        ("san_sop", 2),
        ("san_inshop", 2),
        ("ms_san_cub", 0.035),
    ],
)
def test_rates_add_up_to_what_the_sources_train_with(name, least):
    """CBML's GoogLeNet: .096; cross-batch memory: 35,000 steps of 1e-4; multi-similarity: .040."""
    path = RECIPES / f"{name}.yaml"
    each, rates = course(load_recipe(path))
    assert each * sum(rates) > least
    assert f"{each * len(rates):,} steps" in path.read_text()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("san_*.yaml")), ids=lambda p: p.stem)
def test_the_bank_forgets_within_the_stage_at_full_rate_and_its_loss_is_named(path):
    recipe = load_recipe(path)
    assert recipe.strategy.options["momentum"] == 0.99
    each, rates = course(recipe)
    full = each * sum(rate > max(rates) / 2 for rate in rates)
    assert full > 20 / (1 - recipe.strategy.options["momentum"])
    names = [loss.name for loss in recipe.losses]
    assert names == ["multi_similarity", "cbml"]
    assert recipe.losses[1].options["use_memory"]


def test_most_clusterings_are_trained_on_at_a_rate_that_moves_something():
    recipe = load_recipe(RECIPES / "san_unsupervised_cub.yaml")
    last = course(recipe)[1][recipe.rounds.epochs_per_round - 1 :: recipe.rounds.epochs_per_round]
    assert sum(rate > recipe.optimizer.lr / 10 for rate in last) == 11
    assert recipe.discovery[0].options["warm"] is False


def test_proxy_anchors_first_epoch_is_its_heads_and_proxies_alone():
    recipe = load_recipe(RECIPES / "proxy_anchor_san_cub.yaml")
    assert recipe.optimizer.frozen_epochs == {"student.backbone": 1}
    assert recipe.schedule.warmup_epochs == 0
    assert course(recipe)[1][0] == recipe.optimizer.lr  # no ramp of the rate
    assert recipe.optimizer.factors["loss"] == 100


@pytest.mark.parametrize(
    ("row", "control", "key"),
    [
        ("grocery_san", "grocery_baseline", "blocks"),
        ("grocery_san_pooling", "grocery_pooling", "blocks"),
        ("grocery_pooling", "grocery_baseline", "blocks"),
        ("grocery_san_views", "grocery_san", "strategy"),
        ("grocery_san_canonical", "grocery_san_views", "losses"),
    ],
)
def test_each_variant_of_san_differs_from_its_control_by_one_thing(row, control, key):
    one, other = (
        load_recipe(STUDY / f"{name}.yaml", ["model.weights=null"]) for name in (row, control)
    )
    san_alone = {"weights", "optimizer"}  # of its terms, and its rate
    differ = {k for k in one.resolved if one.resolved[k] != other.resolved.get(k)} - {"name"}
    assert key in differ
    assert differ - {key} <= (
        {"weights"} if key == "losses" else san_alone if key == "blocks" else set()
    )
    if key == "blocks":
        assert len(one.blocks) == len(other.blocks) + 1
    elif key == "losses":
        assert [*other.losses, one.losses[-1]] == list(one.losses)

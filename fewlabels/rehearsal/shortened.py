"""The recipe of a rehearsal: the same run in few rounds, on the stand-in's counts."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from fewlabels.files import find_path
from fewlabels.recipe.recipe import Recipe, recipe_from
from fewlabels.rehearsal.facts import Facts, count_classes
from fewlabels.rehearsal.standin import StandIn

Counts = tuple[int, int]


def choose_counts(recipe: Recipe, facts: Facts, images_a_second: float) -> Counts:
    """Images of the stand-in that train and that are tested, by how fast the network is here.

    Where people label some, there are four of each class or more; where the head starts from
    principal components, as many as it has outputs.
    """
    data, wanted = facts.data, int(min(400, max(48, 4 * images_a_second)))
    if facts.looks_at_images:
        wanted = 24
    classes = min(facts.most_classes, count_classes(data.records.truth[data.split.train]))
    train = max(wanted, (4 if isinstance(recipe.data.labels, int) else 2) * classes)
    if recipe.strategy.options.get("head") == "pca":
        train = max(train, recipe.model.embedding_size or 0)
    return min(len(data.split.train), train), min(len(data.split.test), wanted)


def shorten_recipe(recipe: Recipe, facts: Facts, standin: StandIn, keeps: Counts) -> Recipe:
    """The recipe of the rehearsal.

    Three rounds at most, with two discoveries where there are any, and two more of both where
    weights restart for generations; random weights instead of ones that would be fetched; labels
    and clusters in proportion to the images. A rate that falls in the last epochs does so in one,
    without warm-up, for the others may be gone. Steps and batches are cut where the loop makes
    them, so all else is the recipe's own.

    Args:
        keeps: bytes of decoded training and of tested images that the whole run keeps in memory.
    """
    resolved: dict[str, Any] = copy.deepcopy(recipe.resolved)
    resolved["data"] |= dict(standin.options)
    resolved["evaluation"] |= {"every": 0, "steps": 0}
    resolved["train"] |= {"checkpoint_every": 0, "log_every": 1}
    rounds = resolved["rounds"]
    discoveries = -(-recipe.rounds.rounds // recipe.rounds.discover_every)
    rounds |= {"rounds": min(2, discoveries), "discover_every": 1, "stop": None}
    rounds["generations"] = 1 if recipe.rounds.restart == "never" else min(2, rounds["generations"])
    if recipe.schedule.final_epochs:  # they may be more than what is left
        resolved["schedule"] |= {"warmup_epochs": 0, "final_epochs": 1}
    if has_no_weights_here(recipe):
        resolved["model"] |= {"pretrained": False, "weights": None}
    small = len(facts.data.train)
    if standin.records is not None:
        small = fit_to_counts(resolved, recipe, facts, standin)
    image = keeps[0] / max(1, len(facts.data.train))
    if not keeps[0]:
        resolved["data"]["memory"] = 0
    elif not keeps[1]:  # those that train, and not one more
        resolved["data"]["memory"] = small * image / 2**30
    return recipe_from(resolved)


def has_no_weights_here(recipe: Recipe) -> bool:
    """Whether weights would have to be fetched, or the file that is named is not here."""
    file = recipe.model.weights
    return recipe.model.pretrained or (file is not None and find_path(file) is None)


def fit_to_counts(resolved: dict[str, Any], recipe: Recipe, facts: Facts, standin: StandIn) -> int:
    """Labels, images held out and clusters in proportion to the stand-in's training images.

    Returns:
        The images that train.
    """
    assert standin.records is not None
    split = facts.data.split
    train = np.isin(standin.rows, split.train)
    small = int(train.sum())
    share = min(1.0, small / max(1, len(split.train)))
    classes = max(1, count_classes(standin.records.truth[train]))
    for key in ("labels", "validation"):
        given = resolved["data"][key]
        if isinstance(given, int) and given:
            one = recipe.data.share == "per_class"
            each = given if one else given / classes
            each = max(1, min(int(each * share) if not one else int(each), small // classes // 4))
            resolved["data"][key] = each if one else each * classes
    for spec in resolved["discovery"]:
        if isinstance(spec.get("clusters"), int):
            spec["clusters"] = max(2, round(spec["clusters"] * share))
    held = resolved["data"]["validation"]
    return small - held * (classes if recipe.data.share == "per_class" else 1)

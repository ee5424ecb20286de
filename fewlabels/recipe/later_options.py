"""Options that came after the first release, and the values that recipes of before stand for.

A run folder holds its recipe with every option of its day, so one that is missing there is younger
than the run: it gets the value by which the run goes on as it began. What a person writes holds few
options, and gets the defaults of today.

What no option decides is as today in a run of before that goes on: compositions of an LMCS run, and
the passes of a ``vat`` run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fewlabels.recipe.sections import Fixed

SECTIONS: dict[str, dict[str, Any]] = {
    "data": {"max_bad": 0.01, "drop_duplicates": False, "cached_views": 8},
    "model": {
        "mean": None,
        "std": None,
        "frozen": False,
        "head": None,
        "hidden": 512,
        "mirror": False,
    },
    "optimizer": {"no_decay": [], "frozen_epochs": {}},
    "schedule": {"final_epochs": 0},
}
COMPONENTS: dict[tuple[str, str], dict[str, Any]] = {
    ("strategy", "ict"): {"mix_labelled": False, "share": "image"},
    ("strategy", "mixup"): {"average": None},
    ("strategy", "pi_model"): {"average": None, "gradient": "both"},
    ("strategy", "pseudo_label"): {"average": None},
    ("strategy", "supervised"): {"average": None},
    ("strategy", "tac_ccl"): {"pair_labels": "left"},
    ("strategy", "temporal_ensembling"): {"average": None},
    ("strategy", "vat"): {"average": None},
    ("discovery", "by_prediction"): {
        "precision": "double",
        "weigh": False,
        "mass": "free",
        "score": "probability",
        "neighbours": None,
        "relabel": False,
    },
    ("discovery", "confident"): {"score": "distance", "weigh": False},
    ("discovery", "matching"): {"across": False},
    ("losses", "attention_consistency"): {"form": "printed"},
}
WEIGHTS: dict[str, dict[str, Any]] = {
    "lmcs": {"consistency": 1.0, "master_supervised": 1.0},
    "vat": {"adversarial": 1.0, "entropy": 1.0},
}
"""Weights of loss terms that a strategy had by default, where it has others now."""

EARLIER_AVERAGE = {"end": 0.999, "start": 0.0, "steps": 0, "shape": "linear"}
"""MixMatch's default, which null stands for in Snowball with MixMatch; it changes the hash, too."""

EMBEDDERS = ("metric", "tac_ccl")
"""Strategies whose GoogLeNet had dropout, where it has none now."""


def fill_earlier_values(data: dict[str, Any]) -> None:
    """Set, in the recipe of an older run, what it does not have; others are left alone.

    Args:
        data: of a recipe, not yet checked, with lists of components; changed in place.
    """
    strategy, model = data.get("strategy"), data.get("model")
    if not Fixed.model_fields.keys() <= data.keys() or not isinstance(model, dict):
        return  # written by a person
    if "mean" in model:
        return  # it has all options; others come where it is extended, or overridden
    if isinstance(strategy, dict):
        weights = WEIGHTS.get(str(strategy.get("name")), {})
        if isinstance(data.setdefault("weights", {}), dict):
            data["weights"] = {**weights, **data["weights"]}
        _keep_dropout(strategy, model)
        if (strategy.get("name"), strategy.get("base")) == ("snowball", "mixmatch"):
            strategy["ema"] = strategy.get("ema") or dict(EARLIER_AVERAGE)
    for mapping, later in _find_later(data):
        for key, value in later.items():
            mapping.setdefault(key, value)


def _keep_dropout(strategy: dict[str, Any], model: dict[str, Any]) -> None:
    """GoogLeNet's dropout of .2, which embedders had; it changes the hash, as it does the run."""
    options, name = model.get("backbone_options") or {}, str(model.get("backbone")).split(".")[0]
    if strategy.get("name") in EMBEDDERS and name == "googlenet" and isinstance(options, dict):
        model["backbone_options"] = {"drop_rate": 0.2, **options}


def drop_earlier_values(resolved: dict[str, Any]) -> None:
    """Take away what has an earlier value, so that a recipe's hash is that of before.

    A weight that a recipe leaves to the strategy is null where the strategy's own is another now.

    Args:
        resolved: a whole recipe; changed in place.
    """
    weights = resolved["weights"]
    for term, value in WEIGHTS.get(resolved["strategy"]["name"], {}).items():
        if weights.get(term) == value:
            del weights[term]
        else:
            weights.setdefault(term, None)
    for mapping, later in _find_later(resolved):
        for key, value in later.items():
            if key in mapping and mapping[key] == value:
                del mapping[key]


def _find_later(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The mappings of a recipe that have later options, and these with their earlier values."""
    for name, later in SECTIONS.items():
        if isinstance(data.get(name), dict):
            yield data[name], later
    for slot in ("strategy", "discovery", "losses"):
        value = data.get(slot)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and (slot, each.get("name")) in COMPONENTS:
                yield each, COMPONENTS[slot, each["name"]]

"""The recipes of ``fewlabels classify``: all its settings stand here.

What it trains is ``recipes/classify_folder.yaml`` and, with ``--fine-tune``,
``recipes/classify_fine_tune.yaml``, with a person's own folder, table and backbone.
"""

from __future__ import annotations

from typing import Any

from fewlabels.recipe.recipe import Recipe, recipe_from
from fewlabels.runs.photos import Photos

FROZEN: dict[str, Any] = {"frozen": True, "head": "root"}
STRATEGY: dict[str, Any] = {"name": "lda"}
DISCOVERY: dict[str, Any] = {
    "name": "by_prediction",
    "by": "student",
    "balance": True,
    "mass": "equal",
    "score": "margin",
    "relabel": True,
    "weigh": True,
}
ROUNDS: dict[str, Any] = {"rounds": 6, "growth": "even"}
"""On groceries and CIFAR-10 six rounds did as well as ten (docs/results/frozen.md)."""

TUNED: dict[str, Any] = {"freeze_batchnorm": "statistics", "head": "root"}
FINE_TUNING: dict[str, Any] = {
    "strategy": {"name": "fine_tune", "labelled": 32, "average": {"end": 0.98, "shape": "reach"}},
    "views": [
        {"name": "homography", "crop": [0.3, 1.0], "rotation": 15},
        {"name": "flip"},
        {
            "name": "colour_jitter",
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.4,
            "hue": 0.05,
        },
    ],
    "optimizer": {"name": "adamw", "lr": 3e-5},
    "schedule": {"name": "constant", "final_epochs": 2},
    "rounds": {
        "rounds": 1,
        "growth": "all",
        "first_epochs": 1,
        "epochs_per_round": 36,
        "steps_per_epoch": 10,
    },
}
"""Chosen on the groceries' validation photographs (docs/results/frozen.md)."""


def make_recipe(photos: Photos, discover: bool = True) -> Recipe:
    """The recipe of a closed form on frozen features.

    Args:
        discover: whether rounds with a discovery follow the one on the given labels alone.
    """
    own: dict[str, Any] = {"name": "classify", "seed": photos.seed, "strategy": STRATEGY}
    own |= {"data": _describe_data(photos), "model": {**_describe_model(photos), **FROZEN}}
    if discover:
        own |= {"discovery": DISCOVERY, "rounds": ROUNDS}
    return recipe_from({**own, "evaluation": {"every": 0}})


def make_fine_tuning(photos: Photos, ledger: str | None) -> Recipe:
    """The recipe that trains the whole network.

    Args:
        ledger: of the run whose labels it begins with; None: with the given labels alone.
    """
    own: dict[str, Any] = {"name": "classify-fine-tune", "seed": photos.seed, **FINE_TUNING}
    own |= {"data": _describe_data(photos), "model": {**_describe_model(photos), **TUNED}}
    if ledger is not None:
        own["discovery"] = {"name": "ledger", "path": ledger}
    else:  # as many steps as with a discovery
        rounds = own["rounds"]
        epochs = rounds["first_epochs"] + rounds["epochs_per_round"]
        own["rounds"] = {"epochs_per_round": epochs, "steps_per_epoch": rounds["steps_per_epoch"]}
    return recipe_from({**own, "evaluation": {"every": 0}})


def _describe_data(photos: Photos) -> dict[str, Any]:
    tables = list(photos.labels)
    return {
        "source": "folder",
        "path": photos.path,
        "labels_csv": tables[0] if len(tables) == 1 else tables or None,
        "split": "all",
        "labels": "all",
        "max_bad": 0.999 if photos.skip_unreadable else 0,  # 0: images are read once, not twice
    }


def _describe_model(photos: Photos) -> dict[str, Any]:
    return {
        "backbone": photos.backbone,
        "pretrained": photos.weights is None,
        "weights": photos.weights,
        "image_size": photos.image_size,
    }

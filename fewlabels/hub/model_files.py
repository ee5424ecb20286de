"""The names of the two files of a saved model, in a local folder or a repository."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CONFIG, WEIGHTS = "config.json", "model.safetensors"


_PICKLED = {".bin", ".pth", ".pt", ".pkl", ".ckpt"}


def describe_missing_file(what: str, name: str, names: Iterable[str]) -> str:
    """The error message for a model without the file ``name``; ``names`` are those it has."""
    if "model" in names and "recipe.yaml" in names:
        return f"{what}: no {name}; this is a run, whose model is in {what}/model: give that"
    pickled = [other for other in names if Path(other).suffix in _PICKLED]
    hint = f"; {pickled[0]} is pickled, can run code and is not read" if pickled else ""
    return f"{what}: no {name}{hint}; a model is {CONFIG} and {WEIGHTS}"

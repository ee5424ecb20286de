"""Runs all recipes of a folder in order; the conformance checks start it in two processes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import fewlabels
from fewlabels.training.processes import leave_processes


def main(folder: str, *modules: str) -> None:
    """Run ``folder/*.yaml``, after importing those ``modules`` that can be found here."""
    for module in modules:
        if importlib.util.find_spec(module.partition(".")[0]):
            importlib.import_module(module)
    for recipe in sorted(Path(folder).glob("*.yaml")):
        fewlabels.train(recipe, out=folder)
    leave_processes()


if __name__ == "__main__":
    main(*sys.argv[1:])

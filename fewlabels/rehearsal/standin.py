"""A small stand-in for a recipe's data, read by the recipe's own source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.contracts import Records
from fewlabels.recipe.recipe import Recipe
from fewlabels.rehearsal.facts import Facts, choose_rows, take_rows
from fewlabels.rehearsal.standin_layouts import LAYOUTS
from fewlabels.rehearsal.standin_tables import TABLES


@dataclass(frozen=True)
class StandIn:
    """Where a stand-in lies.

    Attributes:
        options: of the source, to read it.
        records: how many images of which class; None: the data stand for themselves, unreduced.
        rows: of the data for which they stand.
        bytes_an_image: on the disk; 0 where the data stand for themselves.
    """

    options: Mapping[str, Any]
    records: Records | None
    rows: np.ndarray
    bytes_an_image: float


def write_standin(recipe: Recipe, facts: Facts, train: int, test: int, root: Path) -> StandIn:
    """Write a stand-in of so many images, in the layout of the recipe's source.

    Sources without a layout here, digits and those of plugins, stand for themselves.
    """
    name = recipe.source.name
    if name not in LAYOUTS and name not in TABLES:
        return StandIn({}, None, np.arange(len(facts.data.records)), 0.0)
    rows = choose_rows(facts, train, test)
    records = take_rows(facts.data.records, rows)
    if name in LAYOUTS:
        options = LAYOUTS[name](root, records, facts.sides)
    else:
        options = TABLES[name](root, records, facts.sides, recipe)
    known = {k: v for k, v in options.items() if k in recipe.source.options}
    if "check_counts" in recipe.source.options:
        known |= {"check_counts": False, "id": None, "revision": None}
    return StandIn(known, records, rows, measure_bytes(root) / len(records))


def measure_bytes(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

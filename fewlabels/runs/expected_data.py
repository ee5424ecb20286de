"""The data of a recipe as they are expected to be, of which nothing is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn, overload

import numpy as np
from PIL.Image import Image

from fewlabels.contracts import Counts, Records, counts_of
from fewlabels.errors import DataError
from fewlabels.recipe.recipe import Recipe
from fewlabels.registry.build import build_component
from fewlabels.runs.training_data import TrainingData, read_labels, read_split

ASSUMED = 1000
"""Images of each part of data whose number nobody has published."""


class NoImages(Sequence[Image]):
    """Images that are not there: only their number is known."""

    def __init__(self, count: int) -> None:
        self.size = count

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, i: int) -> NoReturn: ...
    @overload
    def __getitem__(self, i: slice) -> NoReturn: ...
    def __getitem__(self, i: int | slice) -> NoReturn:
        raise DataError("these data are expected, and none of their images can be looked at")


def expect_data(recipe: Recipe) -> TrainingData:
    """Data of the published counts, split and labelled as the recipe says.

    Where none are published, or others are meant, they are as the recipe needs them.

    Raises:
        DataError: a split or labels that data of these counts cannot give.
    """
    source = build_component("sources", recipe.source.name, recipe.source.options)
    counts = counts_of(source)
    if counts is None or not are_published(recipe):
        records = assume_records(recipe, recipe.data.split or source.default_split)
    else:
        records = make_records(counts)
    return share_out(recipe, records, source.default_split)


def share_out(recipe: Recipe, records: Records, default_split: str) -> TrainingData:
    """Records split and labelled as the recipe says; none of their images is looked at."""
    split = read_split(recipe, records, default_split)
    return TrainingData(records, split, *read_labels(recipe, split.train, records), default_split)


def are_published(recipe: Recipe) -> bool:
    """Whether a recipe's data are the whole of a data set whose counts are known."""
    data, options = recipe.data, recipe.source.options
    parts = [part for part in (data.train, data.test, data.query, data.gallery) if part]
    known = all(column == "split" for part in parts for column in part.where)
    return known and bool(options.get("check_counts", True))


def make_records(counts: Counts) -> Records:
    """Records of these counts, with a column ``split``; classes take turns."""
    truth, first = [], 0
    for part, (images, classes) in counts.parts.items():
        begins = first if counts.disjoint and part != "train" else 0
        truth.append(begins + np.arange(images) % classes)
        first = max(first, classes) if part == "train" else first
    split = np.repeat(list(counts.parts), [len(own) for own in truth])
    every = np.concatenate(truth).astype(np.int64)
    names = tuple(str(n) for n in range(every.max() + 1))
    return Records(NoImages(len(every)), every, names, {"split": split})


def assume_records(recipe: Recipe, split: str) -> Records:
    """Records of data of which nothing is known: with the classes and columns that a recipe names.

    Args:
        split: the recipe's, or its source's own.
    """
    data = recipe.data
    train, test = assume_classes(recipe, split)
    wanted = data.labels if isinstance(data.labels, int) else 0
    each = len(train) if data.share == "per_class" else 1
    count = max(ASSUMED, 4 * each * (wanted + data.validation), 2 * len(train))
    truth = np.concatenate([np.resize(train, count), np.resize(test, max(ASSUMED, 2 * len(test)))])
    rows = np.arange(len(truth))
    tests, odd = rows >= count, rows // len(test) % 2 == 1
    parts = [(data.train, ~tests), (data.test, tests)]
    parts += [(data.query, tests & odd), (data.gallery, tests & ~odd)]
    columns: dict[str, np.ndarray] = {"split": np.where(tests, "test", "train")}
    for chosen, own in parts:
        for column, value in (chosen.where if chosen else {}).items():
            value = value[0] if isinstance(value, list) else value
            other = "" if isinstance(value, str) else value + 1
            columns[column] = np.where(own, value, columns.get(column, other))
    names = tuple(f"class {n}" for n in range(truth.max() + 1))
    return Records(NoImages(len(truth)), truth.astype(np.int64), names, columns)


def assume_classes(recipe: Recipe, split: str) -> tuple[list[int], list[int]]:
    """Classes that train, and that are tested: those that are named, or as labels share out."""
    data = recipe.data
    train, test = (p.parse_classes() if p else None for p in (data.train, data.test))
    shared = [n for n in (data.labels, data.validation) if isinstance(n, int) and n]
    alike = data.share == "balanced"
    few = [n for n in range(10, 1, -1) if not alike or not any(m % n for m in shared)]
    common = math.gcd(*shared)
    count = few[0] if few else common if common > 1 else min(shared)
    if split != "zero_shot":
        own = sorted(train or range(count))
        return own, sorted(test or own)
    own = sorted(train or range(min(test or [count]) or count))
    return own, sorted(test or range(max(own) + 1, max(own) + 1 + len(own)))

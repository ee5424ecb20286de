"""The data of a recipe as they are expected to be, of which nothing is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, overload

import numpy as np
from PIL.Image import Image

from fewlabels.contracts import Counts, Records, counts_of
from fewlabels.data.splits import Split
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

    Where none are published, or others are meant, there are as many images as the recipe needs.

    Raises:
        DataError: labels that data of these counts cannot give.
    """
    source = build_component("sources", recipe.source.name, recipe.source.options)
    counts = counts_of(source)
    if counts is None or not are_published(recipe):
        return assume_data(recipe, source.default_split)
    records = make_records(counts)
    split = read_split(recipe, records, source.default_split)
    return TrainingData(
        records, split, *read_labels(recipe, split.train, records), source.default_split
    )


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


def assume_data(recipe: Recipe, default_split: str, images: int = ASSUMED) -> TrainingData:
    """Data of which only what the recipe says is known: as many labels and classes as it wants.

    Args:
        images: of each part, if there need not be more.
    """
    data = recipe.data
    numbers = [part.parse_classes() if part else None for part in (data.train, data.test)]
    train, test = ([*range(10)] if own is None else sorted(own) for own in numbers)
    labels = data.labels if isinstance(data.labels, int) else 0
    each = len(train) if data.share == "per_class" else 1
    count = max(images, 4 * each * (labels + data.validation), 2 * len(train))
    truth = np.resize(train, count), np.resize(test, max(images, 2 * len(test)))
    every = np.concatenate(truth).astype(np.int64)
    rows = np.arange(len(every))
    held = rows[: data.validation * each]
    kept = rows[len(held) : count]
    given = np.where(np.arange(len(kept)) < labels * each, every[kept], -1)
    query = rows[count:][::2] if data.query else rows[count:]
    gallery = rows[count:][1::2] if data.gallery else None
    records = Records(NoImages(len(every)), every, tuple(map(str, range(every.max() + 1))))
    return TrainingData(
        records,
        Split(rows[:count], rows[count:], query, gallery),
        kept,
        held,
        every[kept] if data.labels == "all" else given,
        default_split,
    )

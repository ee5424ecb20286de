"""What is known of a recipe's data: published, read here, or assumed; and a small part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fewlabels.contracts import Records, counts_of
from fewlabels.errors import DataError
from fewlabels.recipe.recipe import Recipe
from fewlabels.registry.build import build_component
from fewlabels.runs.expected_data import (
    NoImages,
    are_published,
    assume_records,
    make_records,
    share_out,
)
from fewlabels.runs.training_data import TrainingData

SIDES = {"cifar10": (32, 32), "cifar100": (32, 32), "svhn": (32, 32), "inshop": (256, 256)}
SIDES |= {"cub200": (500, 375), "cars196": (700, 480), "sop": (600, 480)}
PHOTOGRAPH = (500, 375)
"""Width and height of a stand-in where no image is here to be looked at; chosen by this project."""
MOST_CLASSES, FEW_CLASSES = 200, 10
"""Of a part of the stand-in; few where a discovery looks at the images, which takes long."""


@dataclass(frozen=True)
class Facts:
    """A recipe's data, without their images.

    Attributes:
        data: split and labelled as the recipe says.
        origin: where the counts are from, in words.
        sides: width and height of an image.
        looks_at_images: whether a discovery looks at the images, so that there are to be few.
    """

    data: TrainingData
    origin: str
    sides: tuple[int, int]
    looks_at_images: bool = False

    @property
    def most_classes(self) -> int:
        """Of a part of the stand-in."""
        return FEW_CLASSES if self.looks_at_images else MOST_CLASSES


def find_facts(recipe: Recipe) -> Facts:
    """The published counts of a recipe's data, or those of the data that are here, or assumed ones.

    Raises:
        DataError: data that the recipe cannot split or label so.
    """
    source = build_component("sources", recipe.source.name, recipe.source.options)
    counts, sides = counts_of(source), SIDES.get(recipe.source.name, PHOTOGRAPH)
    if counts is not None and are_published(recipe) and recipe.source.name in SIDES:
        records, origin = make_records(counts), "published counts"
    else:
        try:
            records, origin = source.load(), "counts of the data that are here"
            sides = records.images[0].size if len(records) else sides
        except DataError:
            kind = recipe.data.split or source.default_split
            records, origin = (
                assume_records(recipe, kind),
                "assumed counts, as the data are not here",
            )
    found = [build_component("discovery", spec.name, spec.options) for spec in recipe.discovery]
    looks_at_images = any(each.needs().images for each in found)
    return Facts(share_out(recipe, records, source.default_split), origin, sides, looks_at_images)


def choose_rows(facts: Facts, train: int, test: int, seed: int = 0) -> np.ndarray:
    """Rows of a small part of the data: so many images of each part, of as many classes as can be.

    Of data of more than ``most_classes`` in a part, some classes are left out.
    """
    data, rng = facts.data, np.random.default_rng(seed)
    split, truth = data.split, data.records.truth
    tests = [split.test] if split.gallery is None else [split.query, split.gallery]
    chosen = [_choose_of_part(split.train, truth, train, rng, facts.most_classes)]
    wanted: np.ndarray | None = None
    for part in tests:
        own = part if wanted is None else part[np.isin(truth[part], wanted)]
        chosen.append(_choose_of_part(own, truth, test // len(tests), rng, facts.most_classes))
        wanted = truth[chosen[-1]] if wanted is None else wanted
    return np.unique(np.concatenate(chosen))


def _choose_of_part(
    rows: np.ndarray, truth: np.ndarray, count: int, rng: np.random.Generator, most: int
) -> np.ndarray:
    """Rows of a part in turns of its classes; those of unknown class are a class too."""
    classes = np.unique(truth[rows])
    if len(classes) > most:
        classes = rng.choice(classes, max(2, min(most, count // 4)), replace=False)
    mixed = rng.permutation(rows[np.isin(truth[rows], classes)])
    order = np.argsort(truth[mixed], kind="stable")
    mixed = mixed[order]
    begins = np.searchsorted(truth[mixed], truth[mixed])
    turn = np.argsort(np.arange(len(mixed)) - begins, kind="stable")
    return mixed[turn[: max(count, 2 * len(classes))]]


def take_rows(records: Records, rows: np.ndarray) -> Records:
    """The records at some rows, without their images."""
    names: Sequence[str] = [records.names[i] for i in rows] if len(records.names) else ()
    columns = {name: np.asarray(values)[rows] for name, values in records.columns.items()}
    return replace(
        records, images=NoImages(len(rows)), truth=records.truth[rows], columns=columns, names=names
    )


def describe_labels(data: TrainingData) -> dict[str, Any]:
    """Numbers of images, for a report."""
    return {
        "train": len(data.train),
        "test": len(data.split.test),
        "labelled": int((data.labels >= 0).sum()),
        "classes": count_classes(data.records.truth[data.split.train]),
    }


def count_classes(truth: np.ndarray) -> int:
    """How many classes images are of; those whose class nobody knows, -1, are of none."""
    return len(np.unique(truth[truth >= 0]))

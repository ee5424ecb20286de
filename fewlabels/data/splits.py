"""Splits of a data set into training, test, query and gallery images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from fewlabels.contracts import Records
from fewlabels.errors import DataError, first_few, suggest_nearest
from fewlabels.ops.natural_order import sort_naturally

Kind = Literal["official", "zero_shot", "all"]

TEST = ("test", "query", "gallery")
VALIDATION = ("dev", "val", "valid", "validation")
"""What publishers call images that are for choices, and no test."""


class Selection(NamedTuple):
    """A choice of images by class number (None: all classes) and by the values of columns."""

    classes: frozenset[int] | None = None
    where: Mapping[str, Any] = {}


class Split(NamedTuple):
    """Data-set rows of each part; without a ``gallery`` the queries search all test images."""

    train: np.ndarray
    test: np.ndarray
    query: np.ndarray
    gallery: np.ndarray | None


def select_images(records: Records, selection: Selection) -> np.ndarray:
    """(N,) bool, True for the images that match a selection.

    Raises:
        DataError: a column does not exist, or no image has one of the wanted values.
    """
    chosen = np.ones(len(records), bool)
    if selection.classes is not None:
        chosen &= np.isin(records.truth, list(selection.classes))
    for column, wanted in selection.where.items():
        if column not in records.columns:
            known = list(records.columns)
            raise DataError(
                f"data: there is no column {column!r}{suggest_nearest(column, known)} "
                f"(all: {', '.join(known) or 'none'})"
            )
        values = np.asarray(records.columns[column])
        wanted = wanted if isinstance(wanted, list) else [wanted]
        hit = np.isin(values, wanted)
        if not hit.any():
            known = sort_naturally({str(value) for value in values})
            raise DataError(
                f"data: no image has {column} = {wanted}; its values are {first_few(known, 8)}"
            )
        chosen &= hit
    return chosen


def split_rows(
    records: Records,
    kind: Kind,
    train: Selection | None = None,
    test: Selection | None = None,
    query: Selection | None = None,
    gallery: Selection | None = None,
) -> Split:
    """The rows of each part.

    ``official`` reads the column ``split``; ``zero_shot`` trains on the first half of the classes
    and tests on the others, unless ``train`` and ``test`` say which, and refuses a class in both;
    ``all`` trains and tests on everything. ``train`` and ``test`` narrow these; where they name
    values of the column ``split``, they replace the official part.

    Raises:
        DataError: no official split, no labels to split by, shared classes, or an empty part.
    """
    everything = np.ones(len(records), bool)
    parts = {"train": everything, "test": everything}
    if kind == "official":
        parts |= _read_official(records, train, test)
    elif kind == "zero_shot":
        first, second = _halve_classes(records)
        parts = {"train": everything if train else first, "test": everything if test else second}
    if train is not None:
        parts["train"] = parts["train"] & select_images(records, train)
    if test is not None:
        parts["test"] = parts["test"] & select_images(records, test)
    if query is not None:
        parts["query"] = parts["test"] & select_images(records, query)
    if gallery is not None:
        parts["gallery"] = parts["test"] & select_images(records, gallery)

    for name in ("query", "gallery"):
        if name in parts:
            parts[name] = parts[name] & parts["test"]
    rows = {name: np.flatnonzero(part) for name, part in parts.items()}
    for name, found in rows.items():
        if len(found) == 0 and (name != "test" or test or query or gallery):
            raise DataError(f"data.{name} has no image; widen its selection")
    if kind == "zero_shot":
        _refuse_shared_classes(records, rows["train"], rows["test"])
    return Split(rows["train"], rows["test"], rows.get("query", rows["test"]), rows.get("gallery"))


def _read_official(
    records: Records, train: Selection | None, test: Selection | None
) -> dict[str, np.ndarray]:
    """(N,) bool by part, from the column ``split``; what a selection names itself is left out."""
    if "split" not in records.columns:
        raise DataError("data: this source has no official split; set split: zero_shot or all")
    official = np.asarray(records.columns["split"])
    parts = {}
    if train is None or "split" not in train.where:
        parts["train"] = official == "train"
    if test is not None and "split" in test.where:
        return parts
    parts["test"] = np.isin(official, TEST)
    for name in ("query", "gallery"):
        if (official == name).any():
            parts[name] = official == name
    labelled = official[records.truth >= 0]
    held_out = sorted(set(labelled.tolist()) & set(VALIDATION))
    if held_out and not np.isin(labelled, TEST).any():
        raise DataError(
            f"data: no test image of the official split has a known class, but {held_out[0]} "
            f"images have; to test on these, set data.test: {{where: {{split: {held_out[0]}}}}}"
        )
    return parts


def _halve_classes(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """Two masks (N,) bool: images of the first half of the classes, and of the second half."""
    classes = np.unique(records.truth[records.truth >= 0])
    if len(classes) < 2:
        raise DataError("data: a zero_shot split needs images of two classes; set split: all")
    half = (len(classes) + 1) // 2
    return np.isin(records.truth, classes[:half]), np.isin(records.truth, classes[half:])


def _refuse_shared_classes(records: Records, train: np.ndarray, test: np.ndarray) -> None:
    shared = np.intersect1d(records.truth[train], records.truth[test])
    shared = shared[shared >= 0]
    if len(shared):
        some = ", ".join(records.classes[c] for c in shared[:5])
        raise DataError(
            f"data: {len(shared)} classes are in train and in test ({some}), which a zero_shot "
            "split forbids; separate them or set split: all"
        )

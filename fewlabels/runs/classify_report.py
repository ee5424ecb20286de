"""The sentences of ``fewlabels classify``, and what it refuses."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewlabels.errors import DataError, FewLabelsError, first_few, make_printable
from fewlabels.evaluation.paired import CERTAIN, Paired
from fewlabels.files import find_path
from fewlabels.runs.photos import Photos
from fewlabels.runs.training_data import TrainingData

SHOWN = 8
"""Classes that are named, of many."""


def refuse_options(photos: Photos) -> None:
    """Refuse places that are not there, and weights of an unnamed backbone.

    Raises:
        FewLabelsError: so.
    """
    place = find_path(photos.path)
    if place is None or not place.is_dir():
        raise FewLabelsError(f"{photos.path}: no such folder; name the one that holds your images")
    for table in photos.labels:
        if find_path(table) is None:
            raise FewLabelsError(
                f"--labels {table}: no such file; name a CSV file with the columns file and label"
            )
    if photos.weights is not None and find_path(photos.weights) is None:
        raise FewLabelsError(
            f"--weights {photos.weights}: no such file; name one that holds the backbone's weights"
        )


def refuse_unclassifiable(photos: Photos, data: TrainingData) -> None:
    """Refuse labels from which no classifier can be made.

    Raises:
        DataError: no labels, or all of one class.
    """
    known = np.unique(data.labels[data.labels >= 0])
    where = " and ".join(photos.labels) or photos.path
    if not len(known):
        raise DataError(
            f"{where}: no image has a label; write a CSV file with the columns file and label, a "
            "row for each image that you know, and name it with --labels"
        )
    if len(known) == 1:
        raise DataError(
            f"{where}: all labels are {data.records.classes[known[0]]!r}; label an image of a "
            "second class"
        )


def describe_counts(path: str, data: TrainingData) -> str:
    """How many images there are, and how many labels of each class; of many classes a few."""
    classes = data.records.classes
    counts = np.bincount(data.labels[data.labels >= 0], minlength=len(classes))
    found = f"{path}: {len(data.train):,} images, {counts.sum():,} of them labelled; "
    if counts.min() == counts.max():
        each = f"{counts[0]} label{'s' if counts[0] > 1 else ''}"
        return make_printable(f"{found}{len(classes)} classes, {each} each: {_name(classes)}")
    order = counts.argsort(kind="stable")
    told = [f"{classes[c]} {counts[c]}" for c in order]
    said = f"{found}{len(classes)} classes, the rarest first: {first_few(told, SHOWN)}"
    for rare, what in (
        (0, "no label and cannot be answered"),
        (1, "one label, so are not checked"),
    ):
        if (own := np.flatnonzero(counts == rare)).size:
            said += f"; with {what}: {first_few([classes[c] for c in own], SHOWN)}"
    return make_printable(said)


def _name(classes: Sequence[str]) -> str:
    return first_few(list(classes), SHOWN)


def describe_pair(pair: Paired, what: str, other: str) -> str:
    """Whether one classifier beats another on the same left-out images."""
    counts = (
        f"of the same images {what} gets {pair.gained} right that are wrong {other}, and "
        f"{pair.lost} wrong that are right {other}"
    )
    if pair.chance > 1 - CERTAIN:
        return f"{counts}: that may be luck (p = {pair.chance:.2f})"
    verdict = "helps" if pair.gained > pair.lost else "hurts"
    return f"{counts}: it {verdict} (p = {pair.chance:.2g})"


def suggest_labels(photos: Photos, table: Path) -> str:
    """What to do with a table of images to label, and the command that then goes on."""
    first = f"label next the images in {table}, of which it is least sure"
    own = Path(photos.path) / "labels.csv"
    tables = list(photos.labels) or ([str(own)] if own.exists() else [])
    words = ["fewlabels", "classify", photos.path]
    for each in (*tables, *([str(table)] if tables else [])):
        words += ["--labels", each]
    again = shlex.join([*words, *_list_model_words(photos)])
    if not tables:
        return f"{first}: put them into the folders of their classes, then: {again}"
    return f"{first}: write their classes into the column label, then: {again}"


def _list_model_words(photos: Photos) -> list[str]:
    defaults = Photos(photos.path)
    words: list[str] = []
    if photos.backbone != defaults.backbone:
        words += ["--backbone", photos.backbone]
    if photos.weights is not None:
        words += ["--weights", photos.weights]
    if photos.image_size is not None:
        words += ["--image-size", str(photos.image_size)]
    if photos.seed:
        words += ["--seed", str(photos.seed)]
    return words + ["--skip-unreadable"] * photos.skip_unreadable

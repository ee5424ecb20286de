"""What the folders above images say: a split, classes, or nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np

from fewlabels.errors import DataError, first_few
from fewlabels.ops.natural_order import sort_naturally

Place = tuple[str, ...]
"""The folders above an image, and its file."""

PARTS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev", "eval", "holdout"),
    "query": ("query",),
    "gallery": ("gallery",),
}
"""What the parts of a split are called, in any case, also with "set", "data" or "images" behind."""

UNLABELLED = {"unlabeled", "unlabelled"}


@dataclass(frozen=True)
class Layout:
    """How the folders above N images stand.

    Attributes:
        lone: the folders that hold all images, outermost first.
        places: (N,) below these.
        split: (N,) the part of a split that an image is of; None: the folders are no split.
    """

    lone: tuple[str, ...]
    places: list[Place]
    split: np.ndarray | None


def read_layout(names: Sequence[str]) -> Layout:
    """The layout of images that are named by their paths below one folder."""
    places = [PurePosixPath(name).parts for name in names]
    lone: list[str] = []
    while all(len(place) > 1 for place in places) and len({place[0] for place in places}) == 1:
        lone.append(places[0][0])
        places = [place[1:] for place in places]
    if lone and _name_part(lone[-1]):  # the only part of a split that is here
        part = lone.pop()
        places = [(part, *place) for place in places]
    return Layout(tuple(lone), places, _read_split(places))


def _read_split(places: Sequence[Place]) -> np.ndarray | None:
    """The part of each image, where every folder is a part, or holds what has no labels."""
    tops = {place[0] for place in places}
    parts = {top: "train" if _is_unlabelled(top) else _name_part(top) for top in tops}
    if None in parts.values() or all(map(_is_unlabelled, tops)):
        return None
    known = set(parts.values())
    if not known & {"test", "query", "gallery"}:
        parts = {top: "test" if part == "val" else part for top, part in parts.items()}
    return np.array([parts[place[0]] for place in places])


def _name_part(folder: str) -> str | None:
    """``"train"`` for Train, training or train_set; None for what is no part of a split."""
    word = re.sub(r"[ _-]?(set|data|images)$", "", folder.casefold())
    return next((part for part, names in PARTS.items() if word in names), None)


def _is_unlabelled(folder: str) -> bool:
    return folder.casefold() in UNLABELLED


def read_classes(root: Path, layout: Layout) -> tuple[list[str | None], list[str]]:
    """The label (N,) that each image has of its folder, and what a person should know of them.

    Images that lie side by side, without folders, have no label.

    Raises:
        DataError: images beside class folders, or a split of which one folder is no part.
    """
    root, places = root.joinpath(*layout.lone), layout.places
    if layout.split is None:
        labels = _name_classes(root, places)
        told = _check_class_folders(root, {label for label in labels if label is not None})
        inner = {place[1] if len(place) > 2 else "" for place in places}
        if all(map(_name_part, inner)):
            told.append(
                f"{root}: {first_few(sorted(inner), 3)} lie within the classes, where they are no "
                "split; put the classes into them to have one"
            )
        return labels, told
    labels = []
    for top, group in groupby(places, key=lambda place: place[0]):
        own = [place[1:] for place in group]
        labels += [None] * len(own) if _is_unlabelled(top) else _name_classes(root / top, own)
    return labels, []


def _name_classes(folder: Path, places: Sequence[Place]) -> list[str | None]:
    """The label of each image below a folder of class folders, or of images alone."""
    loose = [place[0] for place in places if len(place) == 1]
    if len(loose) == len(places):
        return [None] * len(places)
    if loose:
        raise DataError(
            f"{folder}: {len(loose)} images lie outside the class folders (as {loose[0]}); put "
            "each into the folder of its class, or all into one flat folder"
        )
    return [None if _is_unlabelled(place[0]) else place[0] for place in places]


def _check_class_folders(root: Path, classes: Collection[str]) -> list[str]:
    """Refuse class folders of which most are called as parts of a split; remarks where few are."""
    parts = sort_naturally(name for name in classes if _name_part(name))
    others = sort_naturally(set(classes) - set(parts))
    if len(parts) > len(others):
        raise DataError(
            f"{root}: the folders {first_few(parts, 5)} are parts of a split, and "
            f"{first_few(others, 3)} not; name its folders train, val, test and unlabeled, or "
            f"move {others[0]} elsewhere"
        )
    return [f"{root}: the folder {part} is taken for a class, not for a split" for part in parts]

"""Draws the labelled and the validation images; the same seed gives the same ones everywhere.

The images of each class are sorted by a hash of seed and row. The labelled ones are taken from the
front and the validation ones from the back. So with one seed the 250 labelled images are among the
500, and the number of labelled images has no effect on the validation images, nor the reverse.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fewlabels.errors import DataError
from fewlabels.files import new_file

Share = Literal["balanced", "proportional", "per_class"]


class Labelled(NamedTuple):
    """Sorted positions among the training images; ``validation`` ones are not trained on."""

    labelled: np.ndarray
    validation: np.ndarray


def labelled_split(
    truth: np.ndarray,
    rows: np.ndarray,
    count: int,
    seed: int,
    share: Share,
    validation: int = 0,
    names: Sequence[str] = (),
) -> Labelled:
    """Draw the labelled and the validation images.

    Args:
        truth: (N,) classes of the training images; -1, unknown, is never drawn.
        rows: (N,) their data-set rows, which decide the order together with the seed.
        share: ``balanced``: the same number from each class; ``proportional``: as the classes are
            in ``truth`` (the convention of SVHN's published tables), one at least; ``per_class``:
            ``count`` and ``validation`` are numbers of each class.
        names: what the classes are called, for a sentence.

    Raises:
        DataError: a count that the classes cannot share, or more than a class has.
    """
    classes = np.unique(truth[truth >= 0])
    if len(classes) == 0:
        raise DataError("data.labels: no training image has a known class to draw from")
    orders = {c: _order_by_hash(np.flatnonzero(truth == c), rows, seed) for c in classes}
    sizes = np.array([len(orders[c]) for c in classes])
    first, last = (
        _count_per_class(n, sizes, share, w)
        for n, w in ((count, "labels"), (validation, "validation"))
    )
    short = np.flatnonzero(first + last > sizes)
    if len(short):
        c = short[0]
        name = repr(names[classes[c]]) if names else classes[c]
        raise DataError(
            f"data: class {name} has {sizes[c]} training images, too few for {first[c]} "
            f"labels and {last[c]} for validation; lower data.labels or data.validation"
        )
    front = [orders[c][:n] for c, n in zip(classes, first, strict=True)]
    back = [orders[c][len(orders[c]) - n :] for c, n in zip(classes, last, strict=True)]
    return Labelled(np.sort(np.concatenate(front)), np.sort(np.concatenate(back)))


def _order_by_hash(positions: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """Sort positions by the hash of their rows; numpy's shuffles may change between versions."""
    keys = [hashlib.sha256(f"{seed}:{rows[p]}".encode()).digest() for p in positions]
    return positions[sorted(range(len(keys)), key=keys.__getitem__)]


def _count_per_class(count: int, sizes: np.ndarray, share: Share, what: str) -> np.ndarray:
    """The number of images to draw from each class: (classes,)."""
    if count == 0 or share == "per_class":
        return np.full(len(sizes), count)
    if share == "balanced":
        if count % len(sizes):
            raise DataError(
                f"data.{what}: {count} cannot be shared equally by {len(sizes)} classes; take a "
                "multiple, or share: proportional"
            )
        return np.full(len(sizes), count // len(sizes))
    if count < len(sizes):
        raise DataError(f"data.{what}: {count} is less than one for each of {len(sizes)} classes")
    exact = count * sizes / sizes.sum()
    shares = np.maximum(1, np.floor(exact)).astype(np.int64)
    while shares.sum() < count:
        shares[(exact - shares).argmax()] += 1  # the largest remainder
    while shares.sum() > count:  # rare classes were lifted to one
        shares[np.where(shares > 1, exact - shares, np.inf).argmin()] -= 1
    return shares


def write_labelled(
    path: Path, parts: Mapping[str, np.ndarray], truth: np.ndarray, names: Sequence[str]
) -> None:
    """Write the split as CSV with the columns part, row (of the data set), class, name.

    Args:
        parts: data-set rows of each part, by its name.
        truth: class number of every data-set row.
        names: class names by class number.
    """
    with new_file(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "row", "class", "name"])
        for part, rows in parts.items():
            writer.writerows([part, row, truth[row], names[truth[row]]] for row in rows)

"""Reads every image once before labels are drawn: which cannot be read, and which are copies."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fewlabels.contracts import Records
from fewlabels.data.lazy_images import try_images
from fewlabels.data.open_image import check_proportions
from fewlabels.data.readable import describe_unreadable
from fewlabels.data.splits import Split
from fewlabels.errors import (
    DataError,
    FewLabelsError,
    UnreadableImageError,
    first_few,
    make_printable,
)
from fewlabels.files import new_file, open_regular


class LeftOut(NamedTuple):
    """An image that neither trains nor is scored: its row in the data set, its name, and why."""

    row: int
    name: str
    reason: str


class Examined(NamedTuple):
    """What was found.

    Attributes:
        left_out: by row.
        copies: training images that are pixel by pixel the same as another one of the test.
        remarks: sentences that a person should know.
    """

    left_out: tuple[LeftOut, ...] = ()
    copies: int = 0
    remarks: tuple[str, ...] = ()


def examine_images(
    records: Records, split: Split, max_bad: float, drop_duplicates: bool, quiet: bool = False
) -> Examined:
    """Read the images of a split.

    Args:
        max_bad: how many may be left out because they cannot be read; below 1, a share of them.
        drop_duplicates: leave out training images that are copies of test images.
        quiet: no progress bar.

    Raises:
        DataError: more cannot be read.
    """
    tests = list_test_rows(split)
    rows = np.union1d(split.train, tests)
    failed: dict[int, UnreadableImageError] = {}
    digests: dict[int, bytes] = {}
    done = try_images(records.images, rows, digest_pixels, "examine", quiet)
    for row, read in zip(rows.tolist(), done, strict=True):
        if isinstance(read, UnreadableImageError):
            failed[row] = read
        else:
            digests[row] = read
    if len(failed) > (max_bad if max_bad >= 1 else max_bad * len(rows)):
        raise DataError(
            describe_unreadable(
                [(error.name, error.reason) for error in failed.values()],
                f"leave such images out with data.max_bad: {len(failed)} (it is {max_bad:g})",
            )
        )
    copies = find_copies(
        digests, np.setdiff1d(split.train, tests), np.setdiff1d(tests, split.train)
    )
    left_out = {row: error.reason for row, error in failed.items()}
    if drop_duplicates:
        left_out |= {row: f"a copy of {name_row(records, twin)}" for row, twin in copies.items()}
    remarks = []
    if copies and not drop_duplicates:
        row, twin = next(iter(copies.items()))
        remarks.append(
            f"training images that are copies of test images: {len(copies)}, as "
            f"{name_row(records, row)} of {name_row(records, twin)}; data.drop_duplicates: true "
            "leaves them out"
        )
    found = tuple(LeftOut(row, name_row(records, row), left_out[row]) for row in sorted(left_out))
    remarks += describe_left_out(found)
    return Examined(found, len(copies), tuple(map(make_printable, remarks)))


def digest_pixels(image: Image.Image) -> bytes:
    """The same for images of the same pixels, and for no others.

    Raises:
        ValueError: no model takes it.
    """
    check_proportions(*image.size)
    width, height = image.size
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    for top in range(0, height, 1024):  # of a large image, all bytes at once are three times it
        digest.update(image.crop((0, top, width, min(top + 1024, height))).tobytes())
    return digest.digest()


def find_copies(
    digests: Mapping[int, bytes], train: np.ndarray, test: np.ndarray
) -> dict[int, int]:
    """Training rows that have a copy among test rows, and which."""
    first: dict[bytes, int] = {}
    for row in test.tolist():
        if row in digests:
            first.setdefault(digests[row], row)
    return {row: first[digests[row]] for row in train.tolist() if digests.get(row) in first}


def describe_left_out(left_out: Sequence[LeftOut]) -> list[str]:
    """The sentence that names what was left out, if anything was."""
    if not left_out:
        return []
    named = first_few([f"{image.name} ({image.reason})" for image in left_out], 10)
    return [f"images left out: {len(left_out)}, {named}"]


def leave_out_rows(split: Split, left_out: Sequence[LeftOut]) -> Split:
    """A split without some rows.

    Raises:
        DataError: a part is empty then.
    """

    reasons = {image.row: f"{image.name} ({image.reason})" for image in left_out}

    def remain(name: str, part: np.ndarray) -> np.ndarray:
        kept = np.setdiff1d(part, list(reasons))
        if len(part) and not len(kept):
            raise DataError(
                f"data.{name}: all of its images are left out, as {reasons[int(part[0])]}; repair "
                "those that cannot be read, and keep copies by data.drop_duplicates: false"
            )
        return kept

    gallery = None if split.gallery is None else remain("gallery", split.gallery)
    train, test, query = (remain(name, getattr(split, name)) for name in ("train", "test", "query"))
    return Split(train, test, query, gallery)


def list_test_rows(split: Split) -> np.ndarray:
    """The rows that are scored or searched, sorted."""
    parts = [split.test, split.query] + ([] if split.gallery is None else [split.gallery])
    return np.unique(np.concatenate(parts))


def name_row(records: Records, row: int) -> str:
    """What a person would call an image."""
    return str(records.names[row]) if len(records.names) else f"image {row}"


def write_left_out(file: Path, left_out: Sequence[LeftOut]) -> None:
    """A CSV that any system can read: row, name, reason."""
    with new_file(file) as draft, draft.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(LeftOut._fields)
        writer.writerows(left_out)


def read_left_out(file: Path, records: Records) -> Examined | None:
    """What :func:`write_left_out` wrote; None where it is missing, or of other images."""
    try:
        with open_regular(file) as opened:
            rows = list(csv.reader(io.TextIOWrapper(opened, "utf-8", newline="")))[1:]
        found = tuple(LeftOut(int(row), name, reason) for row, name, reason in rows)
        same = all(name_row(records, image.row) == image.name for image in found)
    except (FewLabelsError, OSError, ValueError, IndexError):
        return None
    return Examined(found, remarks=tuple(describe_left_out(found))) if same else None

"""Images that are decoded only when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image, ImageOps

from fewlabels.errors import DataError

DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""PIL's ways of saying that a file is damaged, or larger than any photograph."""


class LazyImages(Sequence[Image.Image]):
    """N images, each read by ``read(i)`` when it is asked for.

    Args:
        name: what a person would call image i, for the sentence when it cannot be read.
    """

    def __init__(
        self, count: int, read: Callable[[int], Image.Image], name: Callable[[int], str]
    ) -> None:
        self.size, self.read, self.name = count, read, name

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, i: int) -> Image.Image: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Image.Image]: ...
    def __getitem__(self, i: int | slice) -> Image.Image | Sequence[Image.Image]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(self.size))]
        if not -self.size <= i < self.size:
            raise IndexError(i)
        try:
            return as_rgb(self.read(i % self.size))
        except DAMAGED as error:
            raise DataError(
                f"{self.name(i)}: not readable as an image ({error}); repair or remove it"
            ) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Turned as its EXIF tag says, in RGB; what is transparent becomes white."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


# Functions of a module and partial(), not lambdas: processes that read lazily must pickle them.


def from_files(files: Sequence[Path]) -> LazyImages:
    """Images in files."""
    return LazyImages(len(files), partial(_open_file, files), partial(_name_image, "", files))


def _open_file(files: Sequence[Path], i: int) -> Image.Image:
    with Image.open(files[i]) as image:
        image.load()
        return image


def from_arrays(images: np.ndarray) -> LazyImages:
    """Images of a uint8 array (N, H, W, 3)."""
    return LazyImages(
        len(images), partial(_open_array, images), partial(_name_image, "image ", None)
    )


def _open_array(images: np.ndarray, i: int) -> Image.Image:
    return Image.fromarray(images[i])


def from_rows(rows: Any, column: str) -> LazyImages:
    """Images of a column of a datasets.Dataset."""
    return LazyImages(
        len(rows), partial(_open_cell, rows, column), partial(_name_image, "row ", None)
    )


def _open_cell(rows: Any, column: str, i: int) -> Image.Image:
    image: Image.Image | None = rows[i][column]
    if image is None:
        raise ValueError("the cell is empty")
    return image


def _name_image(before: str, names: Sequence[Any] | None, i: int) -> str:
    return f"{before}{i if names is None else names[i]}"

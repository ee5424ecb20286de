"""Images that are decoded only when they are looked at."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

from PIL import Image, ImageOps

from fewlabels.errors import DataError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


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
        except (OSError, ValueError, SyntaxError) as error:  # PIL's ways of saying "damaged"
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


def from_files(files: Sequence[Path]) -> LazyImages:
    """Images in files."""

    def read(i: int) -> Image.Image:
        with Image.open(files[i]) as image:
            image.load()
            return image

    return LazyImages(len(files), read, lambda i: str(files[i]))


def from_bytes(encoded: Sequence[bytes], name: Callable[[int], str]) -> LazyImages:
    """Encoded images in memory."""
    return LazyImages(len(encoded), lambda i: Image.open(io.BytesIO(encoded[i])), name)


def image_files(folder: Path) -> list[Path]:
    """The images below a folder, sorted; hidden files and macOS's ``._*`` are not images."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )

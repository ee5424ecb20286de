"""The only place that opens images: what may be opened, how large it may be, and in which colours.

Files may be a stranger's, so nothing in them but their pixels and how they are turned is believed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

ImageSource = str | Path | BinaryIO | Image.Image

FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "QOI", "TGA",
    "HEIF",
)  # fmt: skip
"""What is opened, whatever a file is called; HEIF where the package pillow_heif is registered.

Pillow knows some forty more, and hands PostScript to Ghostscript, which is a programming language.
"""

LARGE = 2**24
"""Pixels above which one image at a time is decoded: with one in each thread, memory would end."""

LARGEST_SIDE = 4096
"""A JPEG is decoded at a half of its size or less while no side gets shorter than this."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's tag of orientation."""

NARROW = 100

_large_turn = threading.RLock()


@contextmanager
def open_image(source: ImageSource, side: int = LARGEST_SIDE) -> Iterator[Image.Image]:
    """An image in 8-bit RGB, as :func:`as_rgb` makes it; other large ones wait until it is closed.

    Args:
        source: a file, an open one, or a picture of Pillow, of which no copy is kept.
        side: a JPEG may be decoded smaller while no side gets shorter than this.

    Raises:
        Exception: no image, a damaged one, one of more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``
            or of numbers that do not say which is white. Decoders raise what they like.
    """
    with ExitStack() as stack:
        if not isinstance(source, Image.Image):
            source = stack.enter_context(_open_file(source))
            if source.width * source.height > LARGE:
                stack.enter_context(_large_turn)
            if min(source.size) >= 2 * side:
                source.draft(None, (side, side))
        yield as_rgb(source)


def _open_file(source: str | Path | BinaryIO) -> Image.Image:
    """An image of which only the head is read."""
    Image.init()
    try:
        image = Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise ValueError("no image in a format that is read") from None
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        image.close()
        raise ValueError(
            f"{image.width} x {image.height} pixels are more than {most:,}; make it smaller"
        )
    return image


def check_proportions(width: int, height: int) -> None:
    """Refuse a side more than 100 times as long as the other: resized, it would fill the memory.

    Raises:
        ValueError: so.
    """
    if max(width, height) > NARROW * min(width, height):
        raise ValueError(f"an image of {width} x {height} pixels is too narrow; crop it")


def as_rgb(image: Image.Image) -> Image.Image:
    """A copy in 8-bit RGB, turned as EXIF says and bare of all else that its file says.

    What is transparent becomes white. Of EXIF the orientation alone is read: cameras and programs
    write other tags in ways that Pillow cannot read, or cannot write again.

    Raises:
        ValueError: integers of more than 16 bits, or floats beyond [0, 1] and [0, 255].
    """
    image.load()
    turn = _read_turn(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        image = _scale_to_8_bits(image)
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(image, mask=image)
    else:
        rgb = image.convert("RGB")
    rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}  # or whoever makes it RGB once more would turn it once more
    return rgb


def _read_turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # what is no EXIF turns nothing
        return None


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 or 32 bits, of which Pillow would make all above 255 white.

    Numbers of 8 bits in a wider type stay as they are.
    """
    values = np.asarray(image)
    least, most = values.min(), values.max()
    if image.mode == "F":
        if least >= -1e-3 and most <= 1 + 1e-3:
            return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
        # Above 1 and below 2 they may be of either kind. Written so that a NaN is refused too.
        if not (least >= 0 and 2 <= most <= 255):
            raise ValueError(f"its values are floats from {least:.3g} to {most:.3g}; scale to 0..1")
        return image
    if image.mode == "I":
        if least < 0 or most > 65535:
            raise ValueError(f"its values are {least} to {most}; save it with 8 or 16 bits")
        if most <= 255 and image.format != "PPM":  # of which Pillow makes 0 to 65535
            return image
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)

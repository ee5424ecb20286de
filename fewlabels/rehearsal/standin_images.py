"""Images that stand in for those of a data set: of its sizes, and with something to look at."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter


def draw_standin(number: int, kind: int, sides: tuple[int, int]) -> Image.Image:
    """A picture of soft blocks of colour, which has keypoints and compresses as photographs do.

    Args:
        number: of the image: no two are the same.
        kind: of its class, which decides its colours.
        sides: width and height in pixels.
    """
    rng = np.random.default_rng([kind + 1, number])
    base = np.random.default_rng(kind + 1).integers(40, 216, 3)
    blocks = rng.normal(base, 45, (max(2, sides[1] // 12), max(2, sides[0] // 12), 3))
    picture = Image.fromarray(blocks.clip(0, 255).astype(np.uint8)).resize(
        sides, Image.Resampling.NEAREST
    )
    return picture.filter(ImageFilter.GaussianBlur(1)) if min(sides) > 64 else picture


def encode_jpeg(image: Image.Image) -> bytes:
    """The bytes of a JPEG file of usual quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()

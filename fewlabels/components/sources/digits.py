"""scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from PIL import Image

from fewlabels.contracts import Records
from fewlabels.registry import sources


@sources.register("digits")
class Digits:
    """scikit-learn's 1,797 handwritten digits; the first 1,200 train, the others test.

    Images have 24 x 24 pixels and come with scikit-learn, so nothing is downloaded. The two parts
    were written by different people.

    Args:
        warp: rotate each digit by up to 30 degrees, scale it by .8 to 1.2 and shift it by up to
            15 % of the side; the amounts depend on the digit's number only. Without this, raw
            pixels already retrieve 97 %.

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998.
    Recipe: `data: {source: digits, warp: true, split: official, labels: 50}`
    """

    default_split: Literal["official", "zero_shot", "all"] = "official"
    counts = {"train": (1200, 10), "test": (597, 10)}

    def __init__(self, *, warp: bool = False) -> None:
        self.warp = warp

    def load(self) -> Records:
        """Records of 24 x 24 pixels, where a digit takes 3/4 of the side."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = [
            draw_digit(pixels, i if self.warp else None) for i, pixels in enumerate(digits.images)
        ]
        split = np.where(np.arange(len(images)) < 1200, "train", "test")
        names = [f"digit {i}" for i in range(len(images))]
        truth = digits.target.astype(np.int64)
        return Records(images, truth, tuple("0123456789"), {"split": split}, names)


def draw_digit(pixels: np.ndarray, number: int | None, side: int = 24) -> Image.Image:
    """Draw a digit on a black square.

    Args:
        pixels: (8, 8) grey values of 0 to 16.
        number: the digit's number, which determines its warp; None: no warp.
        side: side of the square in pixels.
    """
    angle, scale, right, down = 0.0, 1.0, 0.0, 0.0
    if number is not None:
        rng = np.random.default_rng([24, number])
        angle, scale = math.radians(rng.uniform(-30, 30)), rng.uniform(0.8, 1.2)
        right, down = rng.uniform(-0.15, 0.15, 2) * side
    # The place in the digit from which each pixel comes: shift, rotation and scale inverted.
    cell = np.arange(side) + 0.5 - side / 2
    x, y = np.meshgrid(cell - right, cell - down)
    factor = 8 / (0.75 * side * scale)
    u = (x * math.cos(angle) + y * math.sin(angle)) * factor + 4 - 0.5
    v = (-x * math.sin(angle) + y * math.cos(angle)) * factor + 4 - 0.5
    padded = np.pad(pixels / 16.0, 2)  # a black border, so that edges fade
    u, v = np.clip(u + 2, 0, 10.999), np.clip(v + 2, 0, 10.999)
    left, top = u.astype(int), v.astype(int)
    a, b = u - left, v - top
    grey = (
        padded[top, left] * (1 - a) * (1 - b)
        + padded[top, left + 1] * a * (1 - b)
        + padded[top + 1, left] * (1 - a) * b
        + padded[top + 1, left + 1] * a * b
    )
    return Image.fromarray((grey * 255).round().astype(np.uint8)).convert("RGB")

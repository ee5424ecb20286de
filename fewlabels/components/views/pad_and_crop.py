"""Shifts an image by whole pixels, with mirrored borders."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from fewlabels.ops import geometry
from fewlabels.registry import views


@views.register("pad_and_crop")
class PadAndCrop:
    """Shifts an image by up to ``pad`` whole pixels, with mirrored borders, as is usual on CIFAR.

    The same as padding by ``pad`` pixels and cropping to the old size at random.

    Args:
        pad: largest shift in pixels, in each direction.

    Source: common practice on CIFAR, as in Mean Teacher's and MixMatch's code.
    Recipe: `views: [{name: pad_and_crop, pad: 4}]`
    """

    draws = 2
    exact = True
    padding = "reflection"

    def __init__(self, *, pad: Annotated[int, Ge(0)] = 4) -> None:
        self.pad = pad

    def matrix(self, draws: Tensor, side: int) -> Tensor:
        """Maps (B, 3, 3) from source to view on [-1, 1], by draws (B, 2) in [0, 1)."""
        pixels = (draws * (2 * self.pad + 1)).floor() - self.pad  # (B, 2)
        x, y = (pixels * 2 / side).unbind(1)
        return geometry.shift_matrix(x, y)

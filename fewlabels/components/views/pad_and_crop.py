"""Shifts by whole pixels over mirrored borders."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from fewlabels.ops import geometry
from fewlabels.registry import views


@views.register("pad_and_crop")
class PadAndCrop:
    """Shifts by up to ``pad`` whole pixels over mirrored borders, as is usual on CIFAR."""

    draws = 2
    exact = True
    padding = "reflection"

    def __init__(self, *, pad: Annotated[int, Ge(0)] = 4) -> None:
        self.pad = pad

    def matrix(self, draws: Tensor, side: int) -> Tensor:
        """The maps, source -> view."""
        pixels = (draws * (2 * self.pad + 1)).floor() - self.pad  # (B, 2)
        x, y = (pixels * 2 / side).unbind(1)
        return geometry.shift_matrix(x, y)

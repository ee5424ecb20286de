"""Correlation of maps, position by position."""

from __future__ import annotations

import torch
from torch import Tensor

FLAT = 1e-5
"""Of a map whose standard deviation is about this, the correlation goes to 0 instead of 0 / 0."""


def correlate_maps(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Pearson correlation (B,) of maps (B, H, W) over positions that count by ``weight``.

    It does not change if a map is multiplied by a positive number or a number is added to it. A
    flat map, and one without a position that counts, correlates with nothing: 0.
    """
    share = weight / weight.sum((1, 2), keepdim=True).clamp(min=1e-12)
    one, two = (m - (share * m).sum((1, 2), keepdim=True) for m in (first, second))
    joint, *squares = (
        (share * product).sum((1, 2)) for product in (one * two, one * one, two * two)
    )
    return joint / torch.sqrt((squares[0] * squares[1]).clamp(min=FLAT**4))

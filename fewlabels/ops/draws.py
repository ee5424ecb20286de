"""Random draws in [0, 1), spread over ranges."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from torch import Tensor

Share = Annotated[float, Interval(ge=0, le=1)]
"""An option that is a probability or a share."""


def spread_draws(draw: Tensor, low: float, high: float) -> Tensor:
    """Map numbers in [0, 1) linearly to [low, high)."""
    return low + (high - low) * draw

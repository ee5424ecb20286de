"""Mirrors an image left to right."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from fewlabels.ops import geometry
from fewlabels.registry import views


@views.register("flip")
class Flip:
    """Mirrors an image left to right.

    Args:
        probability: probability that an image is mirrored.

    Source: common practice.
    Recipe: `views: [{name: flip, probability: 0.5}]`
    """

    draws = 1
    exact = True

    def __init__(self, *, probability: Annotated[float, Interval(ge=0, le=1)] = 0.5) -> None:
        self.probability = probability

    def matrix(self, draws: Tensor, side: int) -> Tensor:
        """Maps (B, 3, 3) from source to view on [-1, 1], by draws (B, 1) in [0, 1)."""
        mirrored = draws[:, 0] < self.probability
        return geometry.scaling_matrix(torch.where(mirrored, -1.0, 1.0), torch.ones(len(draws)))

"""Mirrors left and right."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from fewlabels.ops import geometry
from fewlabels.registry import views


@views.register("flip")
class Flip:
    """Mirrors left and right."""

    draws = 1
    exact = True

    def __init__(self, *, probability: Annotated[float, Interval(ge=0, le=1)] = 0.5) -> None:
        self.probability = probability

    def matrix(self, draws: Tensor, side: int) -> Tensor:
        """The maps, source -> view."""
        mirrored = draws[:, 0] < self.probability
        return geometry.scaling_matrix(torch.where(mirrored, -1.0, 1.0), torch.ones(len(draws)))

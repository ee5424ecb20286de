"""What a run minimises: the weights of its losses, and how they move weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewlabels.contracts.ramp import Ramp


@dataclass(frozen=True)
class Objective:
    """The weights of losses, and how optimisers and schedules are made.

    Attributes:
        weights: weights of losses by name; a loss without one has weight 1.
        make_optimizer: makes one from named parameters.
        make_scheduler: makes one from an optimiser and the epochs between restarts of weights.
    """

    weights: Mapping[str, Ramp]
    make_optimizer: Callable[..., Any]
    make_scheduler: Callable[..., Any]

    def weigh_losses(self, losses: Mapping[str, Tensor], step: int) -> Tensor:
        """The sum of the losses, each times its weight at this step of its phase."""
        ramps = {name: self.weights.get(name, Ramp(end=1.0)) for name in losses}
        return torch.stack([ramps[name](step) * loss for name, loss in losses.items()]).sum()

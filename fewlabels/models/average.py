"""Moving averages of a module's weights (Tarvainen and Valpola, NeurIPS 2017; Eq. 2.2, 2.6)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn


@torch.no_grad()
def update_average(
    average: nn.Module,
    source: nn.Module,
    decay: float,
    updates: int,
    buffers: Literal["copy", "own"] = "copy",
) -> None:
    """Move ``average`` towards ``source`` after an optimiser step.

    Args:
        decay: at most 1 - 1/(updates + 1) is used, so early averages forget their start.
        updates: how many updates came before this one.
        buffers: ``copy`` takes the source's; ``own`` leaves the average's, which then has to run
            in train mode to keep its statistics.
    """
    decay = min(decay, 1.0 - 1.0 / (updates + 1))
    for mine, its in zip(average.parameters(), source.parameters(), strict=True):
        mine.lerp_(its.detach().to(mine.dtype), 1.0 - decay)
    if buffers == "copy":
        for kept, moved in zip(average.buffers(), source.buffers(), strict=True):
            kept.copy_(moved)

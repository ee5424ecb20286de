"""Moving averages of a module's weights (Tarvainen and Valpola, NeurIPS 2017; Eq. 2.2, 2.6)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def update_average(
    average: nn.Module,
    source: nn.Module,
    decay: float,
    step: int,
    buffers: Literal["copy", "own"] = "copy",
) -> None:
    """Move ``average`` towards ``source`` after an optimiser step.

    Args:
        decay: at most 1 - 1/(step + 1) is used, so early averages forget their start.
        step: optimiser steps since the weights were initialised.
        buffers: ``copy`` copies the source's; ``own`` leaves those of the average, which must then
            run in train mode to update its statistics.
    """
    decay = min(decay, 1.0 - 1.0 / (step + 1))
    mine = list(average.parameters())
    its = [p.to(m.dtype) for p, m in zip(source.parameters(), mine, strict=True)]
    if mine:
        get_ema_multi_avg_fn(decay)(mine, its, None)
    if buffers == "copy":
        for kept, moved in zip(average.buffers(), source.buffers(), strict=True):
            kept.copy_(moved)

"""CBAM: the convolutional block attention module (Woo et al., ECCV 2018)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from fewlabels.contracts import write_side
from fewlabels.registry import blocks


@blocks.register("cbam")
class CBAM(nn.Module):
    """Channel attention, then spatial attention, each a gate in (0, 1) times the map.

    The spatial gate is TAC-CCL's attention map M (Section 4.3.1); the running forward has it as
    ``side["cbam.map"]``, (B, 1, H, W).

    Gates of random weights spoil what a pretrained network sees (docs/results.md). So here they
    begin near 1/2 everywhere and are doubled, which passes the map on as it is; from there they
    dim and amplify. In the paper's block, which is trained from scratch, they only dim.

    Args:
        channels: of the map.
        reduction: the channel gate's hidden layer has ``channels / reduction`` units.
        kernel_size: of the spatial gate's convolution, odd.
        start: ``identity``, or the ``paper``'s.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: Annotated[int, Ge(1)] = 16,
        kernel_size: Annotated[int, Interval(ge=1, le=15)] = 7,
        start: Literal["identity", "paper"] = "identity",
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is even; an odd one has a middle")
        hidden = max(1, channels // reduction)
        last, norm = nn.Conv2d(hidden, channels, 1), nn.BatchNorm2d(1)
        self.channel = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), last)
        self.spatial = nn.Sequential(
            nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False), norm
        )
        self.gain = 1.0
        if start == "identity":
            self.gain = 2.0
            with torch.no_grad():
                last.weight.mul_(0.1)
                norm.weight.mul_(0.1)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """A map of the same shape (B, C, H, W)."""
        mean, most = maps.mean((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        maps = maps * (self.gain * (self.channel(mean) + self.channel(most)).sigmoid())
        mean, most = maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)
        gate = self.spatial(torch.cat([mean, most], 1)).sigmoid()
        write_side("cbam.map", gate)
        return maps * (self.gain * gate)

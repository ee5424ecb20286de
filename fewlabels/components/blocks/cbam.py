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
    """Multiplies a map by channel attention, then by spatial attention (TAC-CCL's attention map).

    The spatial attention (B, 1, H, W) is the attention map M of TAC-CCL (Section 4.3.1). A model's
    output has it as ``side["cbam.map"]``.

    With ``start: identity`` the block begins close to the identity, since gates of random weights
    spoil the features of a pretrained network (docs/results/): both gates begin near 1/2
    everywhere and are doubled, so they lie in (0, 2). They are computed from the map divided by its
    root mean square, so that this start does not depend on the scale of the network's features.
    With ``start: paper`` gates lie in (0, 1), as in the paper's block.

    Args:
        channels: channels of the map.
        reduction: the channel gate's hidden layer has ``channels / reduction`` units.
        kernel_size: side of the spatial gate's convolution, in positions; odd.
        start: how the block begins.

    Raises:
        ValueError: an even ``kernel_size``.

    Source: Woo et al., "CBAM: Convolutional block attention module", ECCV 2018, arXiv 1807.06521;
    as attention map: Li (2021), chapter 4, Section 4.3.1.
    Recipe: `blocks: {name: cbam, after: layer4}`
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
        self.near = start == "identity"
        if self.near:
            with torch.no_grad():
                last.weight.mul_(0.1)
                norm.weight.mul_(0.1)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """The map (B, C, H, W) times both gates, of the same shape."""
        gain, seen = 1.0, maps
        if self.near:
            square = maps.float().square().mean((1, 2, 3), keepdim=True)
            gain, seen = 2.0, maps * square.clamp(min=1e-12).rsqrt().to(maps)
        mean, most = seen.mean((2, 3), keepdim=True), seen.amax((2, 3), keepdim=True)
        channels = gain * (self.channel(mean) + self.channel(most)).sigmoid()
        seen = seen * channels
        mean, most = seen.mean(1, keepdim=True), seen.amax(1, keepdim=True)
        # In bfloat16 a map that begins near 1/2 would have a handful of values.
        gate = self.spatial(torch.cat([mean, most], 1)).float().sigmoid()
        write_side("cbam.map", gate)
        return maps * channels * (gain * gate).to(maps)

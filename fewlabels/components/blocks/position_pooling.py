"""Position-dependent pooling: what is averaged over positions counts by its position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.errors import ModelError
from fewlabels.registry import blocks


@blocks.register("position_pooling")
class PositionPooling(nn.Module):
    """Makes the average pooling behind it a learned one, with a weight for each position.

    A depthwise convolution of the whole map, sum_v a(c, v) F(c, v) with a = 1/N at first, is the
    plain average at the start. The block multiplies a map (B, C, H, W) by N a, so that an average
    over positions behind it gives this sum, in any backbone. Place it after the last module before
    pooling; beside SAN it asks whether the places to which SAN moves features mean anything, and
    without SAN it is the control of that question.

    Args:
        channels, height, width: size of the map, which is fixed.

    Source: this project, as a test of Li (2021), chapter 5.
    Recipe: `blocks: [{name: san, after: layer3}, {name: position_pooling, after: layer4}]`
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, height, width), 1 / (height * width)))

    def forward(self, maps: Tensor) -> Tensor:
        """The weighted map (B, C, H, W) of a map of this shape.

        Raises:
            ModelError: a map of another size than the weights.
        """
        _, height, width = self.weight.shape
        if maps.shape[2:] != (height, width):
            raise ModelError(
                f"position_pooling was made for maps of {height} x {width} positions and got "
                f"{maps.shape[2]} x {maps.shape[3]}; keep the image size"
            )
        return maps * (height * width * self.weight).to(maps)

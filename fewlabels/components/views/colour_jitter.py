"""Changes brightness, contrast, saturation and hue."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fewlabels.ops.draws import spread_draws
from fewlabels.registry import views


@views.register("colour_jitter")
class ColourJitter:
    """Changes brightness, contrast, saturation and hue by random amounts, in this order.

    Args:
        brightness, contrast, saturation: for a value b, a factor from [max(0, 1 - b), 1 + b).
        hue: for a value h, a turn of the hue by -h to h, as a share of the whole circle.

    Source: the definitions of torchvision's ColorJitter, in a fixed order.
    Recipe: `views: [{name: colour_jitter, brightness: 0.4, hue: 0.1}]`
    """

    draws = 4

    def __init__(
        self,
        *,
        brightness: Annotated[float, Ge(0)] = 0.0,
        contrast: Annotated[float, Ge(0)] = 0.0,
        saturation: Annotated[float, Ge(0)] = 0.0,
        hue: Annotated[float, Interval(ge=0, le=0.5)] = 0.0,
    ) -> None:
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.hue = hue

    def colour(self, images: Tensor, draws: Tensor) -> Tensor:
        """The changed images (B, 3, H, W) in [0, 1], by draws (B, 4) in [0, 1)."""
        spans = (self.brightness, self.contrast, self.saturation)
        factors = [
            spread_draws(draw, max(0.0, 1 - span), 1 + span).view(-1, 1, 1, 1)
            for draw, span in zip(draws.unbind(1), spans, strict=False)
        ]
        if self.brightness:
            images = (images * factors[0]).clamp(0, 1)
        if self.contrast:
            mean = F.rgb_to_grayscale(images).mean((1, 2, 3), keepdim=True)
            images = (mean + factors[1] * (images - mean)).clamp(0, 1)
        if self.saturation:
            grey = F.rgb_to_grayscale(images)
            images = (grey + factors[2] * (images - grey)).clamp(0, 1)
        if self.hue:
            images = turn_hue(images, spread_draws(draws[:, 3], -self.hue, self.hue))
        return images


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue (of HSV) of RGB images (B, 3, H, W) by shares (B,) of the circle."""
    value, _ = images.max(1)
    chroma = value - images.min(1).values
    safe = torch.where(chroma > 0, chroma, 1.0)
    red, green, blue = images.unbind(1)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )  # in sixths of the circle
    hue = hue + 6 * turn.view(-1, 1, 1)
    # Each channel of HSV is a trapezoid of the hue, a third of the circle apart.
    offset = hue.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    k = (offset + hue[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)

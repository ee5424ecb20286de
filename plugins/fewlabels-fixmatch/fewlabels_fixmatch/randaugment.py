"""RandAugment: a few random operations on each image, then a square cut out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge, MinLen
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fewlabels import views
from fewlabels.ops import geometry
from fewlabels.ops.draws import Share, spread_draws

fewlabels_api = 1  # the version of the contracts that this is written for

Operation = Literal[
    "identity",
    "autocontrast",
    "brightness",
    "colour",
    "contrast",
    "equalize",
    "posterize",
    "sharpness",
    "solarize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
]
Operations = Annotated[list[Operation], MinLen(1)]


def blend(images: Tensor, other: Tensor | float, strength: Tensor) -> Tensor:
    """Images (B, C, H, W) on their way to another: at strength 1 (B,), .05 of them is left."""
    return (other + (1 - 0.95 * strength.view(-1, 1, 1, 1)) * (images - other)).clamp(0, 1)


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Keep 8 bits of each value at strength 0 (B,), 4 at 1."""
    levels = 2.0 ** (8 - (4 * strength).round()).view(-1, 1, 1, 1)
    return (images * levels).floor().clamp(max=levels - 1) / levels


COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda images, strength: F.autocontrast(images),
    "brightness": lambda images, strength: blend(images, 0.0, strength),
    "colour": lambda images, strength: blend(images, F.rgb_to_grayscale(images), strength),
    "contrast": lambda images, strength: blend(
        images, F.rgb_to_grayscale(images).mean((1, 2, 3), keepdim=True), strength
    ),
    "equalize": lambda images, strength: F.equalize(images),
    "posterize": posterize,
    "sharpness": lambda images, strength: blend(images, F.adjust_sharpness(images, 0.0), strength),
    "solarize": lambda images, strength: torch.where(
        images >= 1 - strength.view(-1, 1, 1, 1), 1 - images, images
    ),
}
"""What changes images (B, C, H, W) in [0, 1] by strengths (B,) in [0, 1]; ranges are FixMatch's."""


@views.register("randaugment")
class RandAugment:
    """Changes each image by random operations, then greys a random square (FixMatch, Table 12).

    The operations are torchvision's. Its own RandAugment draws from the global generator and turns
    the whole batch alike; here the draws come in, each image has its own, and what moves pixels
    joins the one interpolation of all views, before what changes colours. The strength of each
    operation is drawn, too, as FixMatch does it.

    Args:
        operations: those to draw from, with replacement; null: all. ``fewlabels show view
            randaugment`` lists them. Mirrored colours or turns can change what an image is of.
        count: how many are applied to an image, n.
        magnitude: the largest strength; 1: turns of 30 degrees, shears and shifts of .3, colours
            down to .05, 4 bits.
        cutout: side of the square, as a share of the image's; its centre lies anywhere.
    """

    def __init__(
        self,
        *,
        operations: Operations | None = None,
        count: Annotated[int, Ge(1)] = 2,
        magnitude: Share = 1.0,
        cutout: Share = 0.5,
    ) -> None:
        self.operations: Sequence[str] = operations or get_args(Operation)
        self.count, self.magnitude, self.cutout = count, magnitude, cutout
        self.draws = 2 * count + 2

    def _chosen(self, draws: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each operation in turn: its number, and its strength from -1 to 1; (B,) each."""
        for which, strength in draws[:, : 2 * self.count].T.split(2):
            number = (which * len(self.operations)).long()
            yield number, spread_draws(strength, -self.magnitude, self.magnitude)

    def matrix(self, draws: Tensor, side: int) -> Tensor:
        """The maps of turns, shears and shifts, source -> view."""
        maps = [geometry.identity_matrix(len(draws))]
        for number, strength in self._chosen(draws):
            turn, lean, tilt, right, down = (
                strength * torch.tensor([own == name for own in self.operations])[number]
                for name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
            )
            shear = geometry.identity_matrix(len(draws))
            shear[:, 0, 1], shear[:, 1, 0] = 0.3 * lean, 0.3 * tilt
            maps += [geometry.rotation_matrix(math.radians(30) * turn), shear]
            maps += [geometry.shift_matrix(0.6 * right, 0.6 * down)]  # in units of half a side
        return geometry.compose_maps(*maps)

    def colour(self, images: Tensor, draws: Tensor) -> Tensor:
        """The images with changed colours, and with a square of each cut out."""
        for number, strength in self._chosen(draws):
            changed = images.clone()
            for i, name in enumerate(self.operations):
                own = (number == i).nonzero()[:, 0]
                if name in COLOURS and len(own):
                    changed[own] = COLOURS[name](images[own], strength[own].abs())
            images = changed
        side = images.shape[-1]
        cells = (torch.arange(side, device=images.device) + 0.5) / side
        x, y = ((cells - at[:, None]).abs() < self.cutout / 2 for at in draws[:, -2:].T)  # (B, S)
        return images.masked_fill(y[:, None, :, None] & x[:, None, None, :], 0.5)

"""Crops, rotates, zooms, shifts and tilts an image by one projective map."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from fewlabels.errors import ComponentError
from fewlabels.ops import geometry
from fewlabels.ops.draws import Share, spread_draws
from fewlabels.registry import views


@views.register("homography")
class Homography:
    """Crops, rotates, zooms, shifts and tilts an image by one known map (TAC-CCL, Section 4.3.1).

    Args:
        crop: smallest and largest area of the crop, as a share of the image's; null: no crop.
        ratio: smallest and largest width of the crop, divided by its height.
        rotation: largest angle in degrees, to either side.
        zoom: smallest and largest factor about the centre; null: no zoom.
        shift: largest shift, as a share of the side.
        perspective: largest shift of each corner, as a share of half the side.
        padding: what fills the part of a view that lies outside the image.

    Raises:
        ComponentError: a range that is not two positive numbers in ascending order.

    Source: Li (2021), chapter 4, Section 4.3.1; crops as in Szegedy et al., CVPR 2015, arXiv
    1409.4842.
    Recipe: `views: [{name: homography, crop: [0.16, 1.0], rotation: 15, perspective: 0.1}]`
    """

    draws = 16

    def __init__(
        self,
        *,
        crop: tuple[Share, Share] | None = (0.55, 1.0),
        ratio: tuple[float, float] = (0.75, 1.3333),
        rotation: Annotated[float, Ge(0)] = 0.0,
        zoom: tuple[float, float] | None = None,
        shift: Annotated[float, Ge(0)] = 0.0,
        perspective: Annotated[float, Interval(ge=0, lt=0.5)] = 0.0,
        padding: Literal["zeros", "border", "reflection"] = "zeros",
    ) -> None:
        for name, span in (("crop", crop), ("ratio", ratio), ("zoom", zoom)):
            if span is not None and not 0 < span[0] <= span[1]:
                raise ComponentError(
                    f"view 'homography': {name} {list(span)} is no range; "
                    "write the smaller bound first, above 0"
                )
        if perspective >= 0.5:
            raise ComponentError(
                f"view 'homography': perspective {perspective} can fold the image over itself; "
                "stay below 0.5"
            )
        self.crop, self.ratio, self.zoom = crop, ratio, zoom
        self.rotation, self.shift, self.perspective = rotation, shift, perspective
        self.padding = padding
        self.exact = crop is None and zoom is None and not (rotation or shift or perspective)

    def matrix(self, draws: Tensor, side: int) -> Tensor:
        """Maps (B, 3, 3) from source to view on [-1, 1], by draws (B, 16) in [0, 1)."""
        d = iter(draws.unbind(1))
        maps = []
        area, shape, x, y = next(d), next(d), next(d), next(d)
        if self.crop is not None:
            maps.append(geometry.crop_matrix(self._draw_boxes(area, shape, x, y)))
        angle, zoom, right, down = next(d), next(d), next(d), next(d)
        maps.append(
            geometry.rotation_matrix(spread_draws(angle, -1, 1) * math.radians(self.rotation))
        )
        if self.zoom is not None:
            maps.append(geometry.scaling_matrix(spread_draws(zoom, *self.zoom)))
        move = 2 * self.shift
        maps.append(
            geometry.shift_matrix(spread_draws(right, -move, move), spread_draws(down, -move, move))
        )
        if self.perspective:
            moves = spread_draws(torch.stack(list(d), 1), -self.perspective, self.perspective)
            square = moves.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
            maps.append(geometry.perspective_matrix(square + moves.view(-1, 4, 2)))
        return geometry.compose_maps(*maps)

    def _draw_boxes(self, area: Tensor, shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Boxes (B, 4) x1, y1, x2, y2 in [-1, 1] of random area, shape and place."""
        assert self.crop is not None
        share = spread_draws(area, *self.crop)
        # With other ratios a box of this area would not fit into the image.
        low, high = (
            torch.clamp(share.new_tensor(bound).log(), share.log(), -share.log())
            for bound in self.ratio
        )
        ratio = (low + (high - low) * shape).exp()
        width, height = (share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1)
        left, top = spread_draws(x, -1, 1) * (1 - width), spread_draws(y, -1, 1) * (1 - height)
        return torch.stack([left - width, top - height, left + width, top + height], 1)

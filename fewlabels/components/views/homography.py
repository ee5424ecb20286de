"""Crops, turns, zooms, shifts and tilts: one projective map."""

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
    """Crops, turns, zooms, shifts and tilts, composed into one known map (Section 4.3.1).

    Args:
        crop: range of the crop's share of the area; null: no crop.
        ratio: range of the crop's width by its height.
        rotation: degrees, to either side.
        zoom: range of the factor about the centre; null: none.
        shift: largest move, as a share of the side.
        perspective: largest move of each corner, as a share of half the side.
        padding: what stands where the view looks past the image.
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
        """The maps, source -> view."""
        d = iter(draws.unbind(1))
        maps = []
        area, shape, x, y = next(d), next(d), next(d), next(d)
        if self.crop is not None:
            maps.append(geometry.crop(self._draw_boxes(area, shape, x, y)))
        angle, zoom, right, down = next(d), next(d), next(d), next(d)
        maps.append(geometry.rotation(spread_draws(angle, -1, 1) * math.radians(self.rotation)))
        if self.zoom is not None:
            maps.append(geometry.scaling(spread_draws(zoom, *self.zoom)))
        move = 2 * self.shift
        maps.append(
            geometry.shift(spread_draws(right, -move, move), spread_draws(down, -move, move))
        )
        if self.perspective:
            moves = spread_draws(torch.stack(list(d), 1), -self.perspective, self.perspective)
            square = moves.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
            maps.append(geometry.perspective(square + moves.view(-1, 4, 2)))
        return geometry.compose(*maps)

    def _draw_boxes(self, area: Tensor, shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Boxes of a random area, of a shape that fits the image, at a random place."""
        assert self.crop is not None
        share = spread_draws(area, *self.crop)
        # Beyond these ratios a box of this area leaves the image; cutting it would lose area.
        low, high = (
            torch.clamp(share.new_tensor(bound).log(), share.log(), -share.log())
            for bound in self.ratio
        )
        ratio = (low + (high - low) * shape).exp()
        width, height = (share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1)
        left, top = spread_draws(x, -1, 1) * (1 - width), spread_draws(y, -1, 1) * (1 - height)
        return torch.stack([left - width, top - height, left + width, top + height], 1)

"""Random views of a batch, on the device where it is, with the 3x3 matrix that each applied.

A view splits drawing from applying: draws come from a CPU generator for the whole global batch, so
they are the same on every device and for every number of processes. Geometric views give matrices,
which the pipeline composes, so that pixels are interpolated once; colours come after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Interval
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as F

from fewlabels import geometry
from fewlabels.contracts import View
from fewlabels.errors import ComponentError, DataError
from fewlabels.registry import views

Share = Annotated[float, Interval(ge=0, le=1)]


def between(draw: Tensor, low: float, high: float) -> Tensor:
    """Numbers in [0, 1) spread over [low, high)."""
    return low + (high - low) * draw


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
            maps.append(geometry.crop(self._box(area, shape, x, y)))
        angle, zoom, right, down = next(d), next(d), next(d), next(d)
        maps.append(geometry.rotation(between(angle, -1, 1) * math.radians(self.rotation)))
        if self.zoom is not None:
            maps.append(geometry.scaling(between(zoom, *self.zoom)))
        move = 2 * self.shift
        maps.append(geometry.shift(between(right, -move, move), between(down, -move, move)))
        if self.perspective:
            moves = between(torch.stack(list(d), 1), -self.perspective, self.perspective)
            square = moves.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
            maps.append(geometry.perspective(square + moves.view(-1, 4, 2)))
        return geometry.compose(*maps)

    def _box(self, area: Tensor, shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Boxes of a random area, of a shape that fits the image, at a random place."""
        assert self.crop is not None
        share = between(area, *self.crop)
        # Beyond these ratios a box of this area leaves the image; cutting it would lose area.
        low, high = (
            torch.clamp(share.new_tensor(bound).log(), share.log(), -share.log())
            for bound in self.ratio
        )
        ratio = (low + (high - low) * shape).exp()
        width, height = (share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1)
        left, top = between(x, -1, 1) * (1 - width), between(y, -1, 1) * (1 - height)
        return torch.stack([left - width, top - height, left + width, top + height], 1)


@views.register("flip")
class Flip:
    """Mirrors left and right."""

    draws = 1
    exact = True

    def __init__(self, *, probability: Share = 0.5) -> None:
        self.probability = probability

    def matrix(self, draws: Tensor, side: int) -> Tensor:
        """The maps, source -> view."""
        mirrored = draws[:, 0] < self.probability
        return geometry.scaling(torch.where(mirrored, -1.0, 1.0), torch.ones(len(draws)))


@views.register("pad_and_crop")
class PadAndCrop:
    """Shifts by up to ``pad`` whole pixels over mirrored borders, as is usual on CIFAR."""

    draws = 2
    exact = True
    padding = "reflection"

    def __init__(self, *, pad: Annotated[int, Ge(0)] = 4) -> None:
        self.pad = pad

    def matrix(self, draws: Tensor, side: int) -> Tensor:
        """The maps, source -> view."""
        pixels = (draws * (2 * self.pad + 1)).floor() - self.pad  # (B, 2)
        x, y = (pixels * 2 / side).unbind(1)
        return geometry.shift(x, y)


@views.register("colour_jitter")
class ColourJitter:
    """Changes brightness, contrast, saturation and hue by random factors, in this order.

    Args:
        brightness, contrast, saturation: b draws a factor from [max(0, 1 - b), 1 + b).
        hue: h turns the hue by -h to h of the whole circle.
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
        """The changed images."""
        spans = (self.brightness, self.contrast, self.saturation)
        factors = [
            between(draw, max(0.0, 1 - span), 1 + span).view(-1, 1, 1, 1)
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
            images = turn_hue(images, between(draws[:, 3], -self.hue, self.hue))
        return images


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """RGB images (B, 3, H, W) with the hue of HSV turned by (B,) of the circle."""
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


class Pipeline:
    """Views one after the other: all geometry as one map and one interpolation, then colours.

    Args:
        views: components with ``matrix``, ``colour`` or both (contracts.ViewComponent).
        size: the side of the result; None keeps the images'.

    Raises:
        ComponentError: views that pad in different ways.
    """

    def __init__(self, views: Sequence[Any], size: int | None = None) -> None:
        self.views, self.size = list(views), size
        paddings = sorted({view.padding for view in views if hasattr(view, "padding")})
        if len(paddings) > 1:
            raise ComponentError(
                f"views pad with {' and '.join(paddings)}, but all geometry is one interpolation; "
                "give homography the padding 'reflection', which is pad_and_crop's"
            )
        self.padding: geometry.Padding = paddings[0] if paddings else "zeros"
        self.exact = all(getattr(view, "exact", False) for view in views if hasattr(view, "matrix"))

    def __call__(
        self,
        images: Tensor,
        generator: Generator,
        rows: slice | Tensor | None = None,
        count: int | None = None,
        before: Tensor | None = None,
    ) -> View:
        """One view of uint8 images (B, C, S, S): ``rows`` of a batch of ``count``.

        Args:
            before: (B, 3, 3) maps that come before those of the views, in the same interpolation.

        Raises:
            DataError: images that are not square.
        """
        height, side = images.shape[-2:]
        if height != side:
            raise DataError(f"views take square images, got {height} x {side}; resize or crop them")
        count = len(images) if count is None else count
        rows = slice(None) if rows is None else rows
        drawn = [torch.rand(count, view.draws, generator=generator)[rows] for view in self.views]
        maps = [geometry.identity(len(images)) if before is None else before.cpu()]
        for view, draws in zip(self.views, drawn, strict=True):
            if hasattr(view, "matrix"):
                maps.append(view.matrix(draws, side))
        matrix = geometry.compose(*maps).to(images.device)
        size = self.size or side
        result = images.float() / 255
        if len(maps) > 1 or size != side or before is not None:
            result = geometry.warp(
                result,
                matrix,
                (size, size),
                self.padding,
                "nearest" if self.exact and size == side and before is None else "bilinear",
            )
        for view, draws in zip(self.views, drawn, strict=True):
            if hasattr(view, "colour"):
                result = view.colour(result, draws.to(images.device))
        return View(result, matrix)

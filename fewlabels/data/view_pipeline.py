"""Random augmentations of a batch, on its device, together with the 3x3 matrices they applied.

Random numbers are drawn with a CPU generator for the whole global batch, so they are the same on
every device and for any number of processes. Geometric views give matrices, which the pipeline
multiplies so that pixels are interpolated only once; colour changes are applied afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from fewlabels.contracts import View, colour_of, is_exact, matrix_of, padding_of
from fewlabels.errors import ComponentError, DataError
from fewlabels.ops import geometry


class Pipeline:
    """Applies views in order: all geometry with one interpolation, then all colour changes.

    Args:
        views: components with ``matrix``, ``colour`` or both (contracts.ViewComponent).
        size: side of the result in pixels; None: as the input.

    Raises:
        ComponentError: the views use different padding modes.
    """

    def __init__(self, views: Sequence[Any], size: int | None = None) -> None:
        self.views, self.size = list(views), size
        paddings = sorted({padding for view in views if (padding := padding_of(view))})
        if len(paddings) > 1:
            raise ComponentError(
                f"views pad with {' and '.join(paddings)}, but all geometry is one interpolation; "
                "give homography the padding 'reflection', which is pad_and_crop's"
            )
        self.padding: geometry.Padding = paddings[0] if paddings else "zeros"
        self.exact = all(map(is_exact, views))

    def __call__(
        self,
        images: Tensor,
        generator: Generator,
        rows: slice | Tensor | None = None,
        count: int | None = None,
        before: Tensor | None = None,
    ) -> View:
        """Draw one view of uint8 images (B, C, S, S); its images are floats in [0, 1].

        Args:
            rows, count: the images' rows in the global batch, and its size; None: all B.
            before: (B, 3, 3) matrices to apply before the views', in the same interpolation.

        Raises:
            DataError: the images are not square.
        """
        height, side = images.shape[-2:]
        if height != side:
            raise DataError(f"views take square images, got {height} x {side}; resize or crop them")
        count = len(images) if count is None else count
        rows = slice(None) if rows is None else rows
        drawn = [torch.rand(count, view.draws, generator=generator)[rows] for view in self.views]
        maps = [geometry.identity_matrix(len(images)) if before is None else before.cpu()]
        for view, draws in zip(self.views, drawn, strict=True):
            if make_matrix := matrix_of(view):
                maps.append(make_matrix(draws, side))
        matrix = geometry.compose_maps(*maps).to(images.device)
        size = self.size or side
        result = images.float() / 255
        if len(maps) > 1 or size != side or before is not None:
            result = geometry.warp_images(
                result,
                matrix,
                (size, size),
                self.padding,
                "nearest" if self.exact and size == side and before is None else "bilinear",
            )
        for view, draws in zip(self.views, drawn, strict=True):
            if colour := colour_of(view):
                result = colour(result, draws.to(images.device))
        return View(result, matrix)

"""Images whose features are known: what stands for their pixels where a backbone is frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Generator, Tensor

from fewlabels.contracts import View
from fewlabels.data.pixels import Pixels
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.errors import DataError
from fewlabels.ops.geometry import identity_matrix

Column = tuple[np.ndarray, np.ndarray]
"""Mapped rows (M, F) float16, and the row (N,) of each image."""


class CachedFeatures(Pixels):
    """N images by their features: first of the image itself, then of each of its known views.

    Pixels are decoded only where they are asked for, as for a picture.

    Args:
        images, rows, prepare: as for :class:`Pixels`.
    """

    def __init__(
        self, images: Sequence[Image], rows: np.ndarray, prepare: Callable[[Image], Tensor]
    ) -> None:
        super().__init__(images, rows, prepare)
        self.columns: list[Column] = []

    def read_features(self, find: Callable[[], list[Column]]) -> None:
        """Keep what ``find`` gives: a column of the images themselves, and one of each view."""
        self.columns = find()

    def iterate_batches(
        self, positions: list[list[int]], workers: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions (B,) and features (B, V, F) float16 of each batch, of V columns."""
        for batch in positions:
            yield torch.tensor(batch), self._take_features(batch, self.columns)

    def iterate_evaluation(
        self, positions: list[list[int]], workers: int, size: int
    ) -> Iterator[Tensor]:
        """Features (B, F, 1, 1) of the images themselves, without a view."""
        for batch in positions:
            yield self._take_features(batch, self.columns[:1])[:, 0, :, None, None]

    @staticmethod
    def _take_features(batch: list[int], columns: Sequence[Column]) -> Tensor:
        return torch.from_numpy(np.stack([mapped[at[batch]] for mapped, at in columns], 1))


class KnownViews:
    """The pipelines of a run's views, and which columns of :class:`CachedFeatures` are theirs.

    Args:
        count: known views of each pipeline.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.pipelines: list[Pipeline] = []

    def add_pipeline(self, pipeline: Pipeline) -> CachedView:
        """A function that draws from the known views of a pipeline.

        One without views gives the image itself.
        """
        if not pipeline.views:
            return CachedView(0, 1)
        self.pipelines.append(pipeline)
        return CachedView(1 + (len(self.pipelines) - 1) * self.count, self.count)


class CachedView:
    """Draws one of the known views of each image: a view function (contracts.ViewFunction).

    Args:
        first, count: of its columns in :class:`CachedFeatures`.
    """

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __call__(
        self,
        images: Tensor,
        generator: Generator,
        rows: slice | Tensor | None = None,
        count: int | None = None,
        before: Tensor | None = None,
    ) -> View:
        """One view (B, F, 1, 1) of features (B, V, F); ``rows``, ``count`` as for a pipeline.

        Raises:
            DataError: a view of a part of an image, of which nothing is known.
        """
        if before is not None:
            raise DataError(
                "matched sub-images have no known features, so they cannot train with a frozen "
                "backbone; set model.frozen: false, or take the discovery of pairs out"
            )
        count = len(images) if count is None else count
        drawn = torch.randint(self.count, (count,), generator=generator)
        own = self.first + (drawn if rows is None else drawn[rows]).to(images.device)
        chosen = images[torch.arange(len(images), device=images.device), own]
        return View(
            chosen.float()[:, :, None, None], identity_matrix(len(images)).to(chosen.device)
        )

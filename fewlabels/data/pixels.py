"""Images as uint8 tensors of one size, decoded once if they fit a budget, else at each access."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fewlabels.data.lazy_images import prepare_image, try_images
from fewlabels.data.readable import describe_unreadable
from fewlabels.errors import DataError, UnreadableImageError


class Selected(Sequence[Image]):
    """The images at ``rows`` of a sequence, still decoded only when indexed."""

    def __init__(self, images: Sequence[Image], rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, i: int) -> Image: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Image]: ...
    def __getitem__(self, i: int | slice) -> Image | Sequence[Image]:
        if isinstance(i, slice):
            return Selected(self.images, self.rows[i])
        return self.images[int(self.rows[i])]


class Pixels(Dataset[tuple[int, Tensor]]):
    """Dataset of N images as (3, S, S) uint8 tensors; item i is (i, image of row ``rows[i]``).

    Args:
        images: a sequence that decodes an image when it is indexed.
        rows: (N,) positions in ``images``.
        prepare: makes a (3, S, S) uint8 tensor of an image, with the same S for all.
    """

    def __init__(
        self,
        images: Sequence[Image],
        rows: np.ndarray,
        prepare: Callable[[Image], Tensor],
    ) -> None:
        self.images, self.rows, self.prepare = images, rows, prepare
        self.kept: Tensor | None = None

    def decode_all(self, budget: float, quiet: bool = False) -> Pixels:
        """Decode all images now if they fit.

        Args:
            budget: bytes that may be kept; with more needed, images are read at each access.
            quiet: no progress bar.

        Raises:
            DataError: images that cannot be read.
        """
        images = try_images(self.images, self.rows, self.prepare, "decode", quiet)
        kept: Tensor | None = None
        failed = []
        for i, image in enumerate(images):
            if not isinstance(image, Tensor):
                failed.append(image)
                continue
            if kept is None:
                if image.numel() * len(self.rows) > budget:
                    images.close()
                    return self
                kept = image.new_empty((len(self.rows), *image.shape))
            kept[i] = image
        raise_unreadable(failed)
        self.kept = kept
        return self

    def find_unreadable(self) -> list[UnreadableImageError]:
        """Read all images: what is wrong with those that cannot be."""
        images = try_images(self.images, self.rows, self.prepare, "examine", quiet=True)
        return [image for image in images if not isinstance(image, Tensor)]

    def iterate_batches(
        self, positions: list[list[int]], workers: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions (B,) and images (B, 3, S, S) of each batch; ``workers`` read what is not kept.

        Raises:
            DataError: images that cannot be read; all are read to name them.
        """
        loader = DataLoader(
            self,
            batch_sampler=positions,
            num_workers=0 if self.kept is not None else workers,
            worker_init_fn=_leave_group,
        )
        try:
            yield from loader
        except DataError as error:
            raise_unreadable(self.find_unreadable())
            # A plugin's own; a worker's comes with its traceback as text.
            raise DataError(re.split(r"fewlabels\.errors\.\w+: ", str(error))[-1].strip()) from None

    def iterate_evaluation(
        self, positions: list[list[int]], workers: int, size: int
    ) -> Iterator[Tensor]:
        """The middle (B, 3, size, size) uint8 of the images of each batch, as a model is tested."""
        for _, images in self.iterate_batches(positions, workers):
            yield crop_centre(images, size)

    @property
    def nbytes(self) -> int:
        """Bytes of the images kept in memory; 0 if they are read at each access."""
        return 0 if self.kept is None else self.kept.numel()

    def __len__(self) -> int:
        return len(self.rows)

    def decode_row(self, i: int) -> Tensor:
        """Image i, decoded now.

        Raises:
            UnreadableImageError: it cannot be.
        """
        return prepare_image(self.images, int(self.rows[i]), self.prepare)

    def __getitem__(self, i: int) -> tuple[int, Tensor]:
        return i, self.decode_row(i) if self.kept is None else self.kept[i]

    def take_rows(self, positions: np.ndarray) -> Tensor:
        """Images at ``positions``: (B, 3, S, S) uint8."""
        if self.kept is not None:
            return self.kept[torch.as_tensor(positions)]
        return torch.stack([self.decode_row(int(i)) for i in positions])


def raise_unreadable(failed: Sequence[UnreadableImageError]) -> None:
    """Name images that cannot be read, if there are any.

    Raises:
        DataError: so.
    """
    if failed:
        otherwise = f"leave such images out with data.max_bad: {len(failed)}"
        raise DataError(
            describe_unreadable([(error.name, error.reason) for error in failed], otherwise)
        )


def crop_centre(images: Tensor, size: int) -> Tensor:
    """Crop the centre (..., size, size) of images (..., S, S), as timm's evaluation does."""
    at = round((images.shape[-1] - size) / 2)
    return images[..., at : at + size, at : at + size]


def _leave_group(worker: int) -> None:
    """Keep Ctrl-C from a worker process: it is the run that ends, and its workers with it."""
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()

"""Images as a source gives them, and as a training step gets them; B is the batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class Records:
    """What a source gives: N images, decoded on access, with what is known about them.

    Attributes:
        images: item i is image i, an RGB PIL image; it is decoded each time it is asked for.
        truth: (N,) int64 class numbers into ``classes``; -1 where unknown. Read by evaluation and
            reports, and by training only for samples whose label a person has given.
        classes: names of the classes.
        columns: further facts, each (N,). ``split`` holds the official split ("train", "test",
            or "train", "query", "gallery") where there is one.
        names: (N,) a name for each image that a person would recognise: a file name, a row number.
        remarks: sentences that a person should know of how the images were found, told once.
    """

    images: Sequence[Image]
    truth: np.ndarray
    classes: tuple[str, ...]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    names: Sequence[str] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.truth)


class Source(Protocol):
    """A place where images come from; ``default_split`` is used if ``data.split`` is not set."""

    default_split: Literal["official", "zero_shot", "all"]

    def load(self) -> Records: ...


class View(NamedTuple):
    """One view of a batch: ``matrix`` maps the source image to it, both in [-1, 1]."""

    images: Tensor  # (B, C, H, W) float32 in [0, 1]
    matrix: Tensor  # (B, 3, 3) float32, source -> view, align_corners=False


class ViewComponent(Protocol):
    """One kind of view, as in the ``views`` of a recipe. ``draws`` is how many random numbers in
    [0, 1) it needs for each sample; the program draws them and passes them in.

    It has ``matrix(draws, side)``, which gives (B, 3, 3) maps source -> view for images of ``side``
    pixels, or ``colour(images, draws)``, which changes images (B, C, H, W) in [0, 1], or both. Both
    get the same draws (B, ``draws``). All matrices are applied first, in one interpolation. If
    ``exact`` is true, its maps send pixels to pixels while the size stays, so none is blurred.
    ``padding`` ("zeros", "border" or "reflection") says how to fill what lies outside the image.
    """

    draws: int


class ViewFunction(Protocol):
    """Makes one view of each image, with random numbers from a CPU generator.

    Numbers are drawn for all ``count`` images of the global batch; ``images`` are its ``rows``. So
    the draws do not depend on the device or on the number of processes.
    """

    def __call__(
        self,
        images: Tensor,  # (B, C, H, W) uint8
        generator: torch.Generator,
        rows: slice | None = None,
        count: int | None = None,
        before: Tensor | None = None,  # (B, 3, 3) maps that come first, such as crops
    ) -> View: ...


class Partners(NamedTuple):
    """The right images of a stream of pairs; the left images are in the :class:`Part`."""

    indices: Tensor  # (B,) int64 positions of the right images
    views: list[View]  # of these, drawn apart from those of the left images
    affine: Tensor  # (B, 3, 3) left image -> right image, in [-1, 1]
    points: Tensor  # (B, P, 4): x, y in the left image, x, y in the right one, in [-1, 1]
    there: Tensor  # (B, P) bool, false for rows that only fill up


class Part(NamedTuple):
    """This process's rows of one stream in a batch."""

    indices: Tensor  # (B,) int64 positions in the training set
    labels: Tensor  # (B,) int64, -1 = unlabelled
    views: list[View]
    partners: Partners | None = None
    weights: Tensor | None = None  # (B,) float32 in [0, 1] of the labels; None: each is 1


Batch = Mapping[str, Part]

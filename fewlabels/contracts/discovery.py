"""What a discovery looks at, and what it finds.

N is the number of samples in a pool, M of those discovered, P of pairs, D a feature's width, C
classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Needs:
    """What a discovery looks at; the loop computes only this."""

    model: str = "student"
    history: int = 0
    probabilities: bool = False
    images: bool = False


@dataclass(frozen=True)
class Pairs:
    """Matched sub-images: boxes are xyxy in [0, 1], the affine map is left -> right in [-1, 1]."""

    left: np.ndarray  # (P,) positions in the pool
    right: np.ndarray  # (P,)
    left_box: np.ndarray  # (P, 4)
    right_box: np.ndarray  # (P, 4)
    affine: np.ndarray  # (P, 2, 3)
    points: tuple[np.ndarray, ...]  # P arrays (n, 4): x, y in left, x, y in right, all in [-1, 1]
    scores: np.ndarray  # (P,) larger = surer


@dataclass(frozen=True)
class Discovered:
    """Labels found for M samples of a pool of N."""

    indices: np.ndarray  # (M,) int64 positions in the pool
    labels: np.ndarray  # (M,) int64
    scores: np.ndarray  # (M,) float32, larger = surer
    centres: np.ndarray | None = None  # (K, D) float32
    pairs: Pairs | None = None
    merge: Literal["add", "replace"] = "add"


@dataclass(frozen=True)
class Pool:
    """What a discovery may look at."""

    rows: np.ndarray  # (N,) int64 data-set indices
    features: np.ndarray  # (N, D) float32
    labels: np.ndarray  # (N,) int64, -1 = unlabelled
    given: np.ndarray  # (N,) bool, labelled by a person
    classes: int | None = None
    probabilities: np.ndarray | None = None  # (N, C) float64
    images: Sequence[Image] | None = None
    history: tuple[np.ndarray, ...] = ()  # (N, D) each, newest first
    found: Discovered | None = None  # by the discovery before this one in the recipe's list


class Discovery(Protocol):
    """Finds labels (or pairs) for unlabelled samples; runs in the main process only.

    ``classes`` says how many labels it gives, None when they are the pool's. A discovery that
    keeps something between rounds also has ``state_dict() -> dict[str, ndarray]`` and
    ``load_state_dict``.
    """

    classes: int | None

    def needs(self) -> Needs: ...

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered: ...

"""The input and output of a discovery.

N is the number of samples in a pool, M of discovered samples, P of pairs, and C of classes; D is
the width of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Needs:
    """The inputs that a discovery needs; the loop computes only these."""

    model: str = "student"
    history: int = 0
    probabilities: bool = False
    images: bool = False
    features: bool = True  # false: the pool's may have no numbers


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
    """Labels found for M samples of a pool of N.

    ``weights`` say how much a label counts in the loss, beside 1 for one that a person gave; None
    is 1 for each. Only a discovery with a true ``weigh`` gives them (:class:`Discovery`).
    """

    indices: np.ndarray  # (M,) int64 positions in the pool
    labels: np.ndarray  # (M,) int64
    scores: np.ndarray  # (M,) float32, larger = surer
    centres: np.ndarray | None = None  # (K, D) float32
    pairs: Pairs | None = None
    merge: Literal["add", "replace"] = "add"
    weights: np.ndarray | None = None  # (M,) float32 in [0, 1]


@dataclass(frozen=True)
class Pool:
    """The input of a discovery."""

    rows: np.ndarray  # (N,) int64 data-set indices
    features: np.ndarray  # (N, D) float32
    labels: np.ndarray  # (N,) int64, -1 = unlabelled
    given: np.ndarray  # (N,) bool, labelled by a person
    classes: int | None = None
    probabilities: np.ndarray | None = None  # (N, C) float64
    images: Sequence[Image] | None = None
    history: tuple[np.ndarray, ...] = ()  # (N, D) each, newest first
    found: Discovered | None = None  # by the discovery before this one in the recipe's list
    names: Sequence[str] = ()  # (N,) of the images, where they have names
    class_names: tuple[str, ...] = ()  # by class number


class Discovery(Protocol):
    """Finds labels (or pairs) for unlabelled samples; runs in the main process only.

    ``classes`` is the number of its own labels (clusters), or None if it gives labels of the pool.
    A discovery that keeps state between rounds also has ``state_dict() -> dict[str, ndarray]`` and
    ``load_state_dict``. One that weighs its labels has a true ``weigh``: an option of that name,
    or an attribute of its class, so that a recipe whose strategy would ignore weights is refused.
    """

    classes: int | None

    def needs(self) -> Needs: ...

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered: ...


def check_discovered(found: Any, pool: Pool, budget: int, classes: int | None) -> str:
    """Check a discovery's result; give the first breach of the contract in words, or "".

    Args:
        classes: the number of the discovery's own labels; None if it gives labels of the pool.
    """
    if not isinstance(found, Discovered):
        return f"it gave {type(found).__name__}, not Discovered"
    indices, labels, scores = found.indices, found.labels, found.scores
    if not all(
        isinstance(part, np.ndarray) and part.ndim == 1 for part in (indices, labels, scores)
    ):
        return "indices, labels and scores are not all arrays of one axis"
    if not len(indices) == len(labels) == len(scores):
        return "indices, labels and scores differ in length"
    if indices.dtype.kind not in "iu" or labels.dtype.kind not in "iu":
        return "indices and labels are not whole numbers"
    if broken := _check_weights(found.weights, len(indices)):
        return broken
    if found.merge not in ("add", "replace"):
        return f"merge is {found.merge!r}, neither 'add' nor 'replace'"
    if found.merge == "add" and len(indices) > budget:
        return f"it labelled {len(indices)} samples of a budget of {budget}"
    centres = found.centres
    if centres is not None:
        if not isinstance(centres, np.ndarray) or centres.ndim != 2:
            return "centres are no array of two axes"
        if centres.shape[1] != pool.features.shape[1]:
            return f"centres have {centres.shape[1]} numbers, features {pool.features.shape[1]}"
        if classes is not None and len(centres) != classes:
            return f"there are {len(centres)} centres of {classes} classes"
        if not np.isfinite(centres).all():
            return "a centre is not finite"
    if found.pairs is not None:
        ends = np.concatenate([found.pairs.left, found.pairs.right])
        if len({len(getattr(found.pairs, each.name)) for each in fields(found.pairs)}) > 1:
            return "the arrays of its pairs differ in length"
        if len(ends) and not 0 <= ends.min() <= ends.max() < len(pool.rows):
            return "a pair names an image that is out of range"
    if len(indices) == 0:
        return ""
    if not 0 <= indices.min() <= indices.max() < len(pool.rows):
        return "an index is out of range"
    if len(np.unique(indices)) < len(indices):
        return "an index comes twice"
    free = pool.labels < 0 if found.merge == "add" else ~pool.given
    if not free[indices].all():
        return "a sample was labelled already"
    if labels.min() < 0:
        return "a label is negative"
    most = max(pool.classes or 0, int(pool.labels.max()) + 1) if classes is None else classes
    if labels.max() >= most > 0:
        return f"a label is {labels.max()}, of {most} classes"
    if not np.isfinite(scores).all():
        return "a score is not finite"
    return ""


def _check_weights(weights: Any, count: int) -> str:
    if weights is None:
        return ""
    if not isinstance(weights, np.ndarray) or weights.ndim != 1 or weights.dtype.kind != "f":
        return "weights are no array of floating-point numbers of one axis"
    if len(weights) != count:
        return f"there are {len(weights)} weights of {count} labels"
    if not np.isfinite(weights).all():
        return "a weight is not finite"
    if count and not 0 <= weights.min() <= weights.max() <= 1:
        return f"weights are from {weights.min():g} to {weights.max():g}, not within 0 and 1"
    return ""

"""Confined maximum entropy: of the samples near a class centre, labels the least certain ones."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Interval

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import DataError
from fewlabels.ops.centres import class_centres, l2_normalize, measure_distances
from fewlabels.ops.selection import select_samples
from fewlabels.registry import discovery


@discovery.register("confined_entropy")
class ConfinedEntropy:
    """Labels critical samples: near a class centre, yet uncertain (LMCS, Eq. 3.8 to 3.12).

    The confined set holds the unlabelled samples within Delta of a class centre (Eq. 3.8, 3.9).
    Each of them gets a soft label, a vote of all labelled samples weighted by the rank of their
    distance (Eq. 3.10, 3.11). The samples of highest entropy (Eq. 3.12) get their most likely class
    as a hard label; the score is minus the entropy in bits.

    In Eq. 3.11 as printed the largest class wins once classes are unbalanced, since every labelled
    sample votes with a weight of at least beta / (beta + 1). So the votes of a class are divided by
    its size, which changes nothing while classes are balanced. Features (N, D) are scaled to length
    1 first, as in ``confident``.

    Args:
        confine: Delta as the share of the unlabelled samples that is kept, the nearest first.
        delta: Delta as a distance, in place of ``confine``.
        confined: false: keep all unlabelled samples (Table 3.8).
        beta: beta in the rank weight beta / (beta + R / |Omega_L|), R = 1 for the nearest.
        order: label the samples of highest (``max``) or lowest (``min``) entropy (Table 3.8).
        per_class: divide the votes of a class by the number of its labelled samples; false as in
            the dissertation.
        balance: take the same number from each class, not the best of all classes together.
        by: the model whose features are compared.
        normalise: scale features to length 1; false as in the dissertation.
        block_bytes: memory in bytes for the ranks, which are computed a block of samples at a time.

    Source: Li (2021), chapter 3, Eq. 3.8 to 3.12.
    Recipe: `discovery: {name: confined_entropy, by: student, confine: 0.2}`
    """

    classes: int | None = None

    def __init__(
        self,
        *,
        confine: Annotated[float, Interval(gt=0, le=1)] = 0.2,
        delta: Annotated[float, Gt(0)] | None = None,
        confined: bool = True,
        beta: Annotated[float, Gt(0)] = 0.1,
        order: Literal["max", "min"] = "max",
        per_class: bool = True,
        balance: bool = False,
        by: Literal["student", "teacher", "master"] = "student",
        normalise: bool = True,
        block_bytes: Annotated[int, Ge(1)] = 2**28,
    ) -> None:
        self.confine, self.delta, self.confined = confine, delta, confined
        self.beta, self.order, self.per_class, self.balance = beta, order, per_class, balance
        self.by, self.normalise, self.block_bytes = by, normalise, block_bytes

    def needs(self) -> Needs:
        """The features of the model ``by``."""
        return Needs(self.by)

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """At most ``budget`` samples with their labels; fewer where the confined set is smaller.

        Raises:
            DataError: no sample is labelled, features that are not finite, or a delta that leaves
                no sample while none has been labelled by a discovery.
        """
        labelled = np.flatnonzero(pool.labels >= 0)
        if len(labelled) == 0:
            raise DataError(
                "discovery 'confined_entropy' needs labelled samples to start from; set data.labels"
            )
        if not np.isfinite(pool.features).all():
            raise DataError("discovery 'confined_entropy' got features that are not finite")
        features = l2_normalize(pool.features) if self.normalise else pool.features
        known, centres = class_centres(features, pool.labels)
        # Entropies can be equal. The order is random, so that such ties do not favour the class
        # that comes first in the data.
        free = rng.permutation(np.flatnonzero(pool.labels < 0))
        if self.confined and len(free):
            nearest = measure_distances(features, centres).min(1)[free]
            begun = not pool.given[labelled].all()
            free = free[self._select_confined(nearest, begun)]
        soft = vote_soft_labels(
            features[free],
            features[labelled],
            np.searchsorted(known, pool.labels[labelled]),
            len(known),
            self.beta,
            self.per_class,
            self.block_bytes,
        )
        score, labels = -compute_entropy(soft), known[soft.argmax(1)]
        # Scores are minus the entropies, so ``max`` takes the highest entropies.
        chosen = select_samples(score, labels, budget, self.order, None, self.balance, rng)
        chosen = chosen[free[chosen].argsort()]
        return Discovered(free[chosen], labels[chosen], score[chosen].astype(np.float32), centres)

    def _select_confined(self, nearest: np.ndarray, begun: bool) -> np.ndarray:
        """Positions of the confined set among distances (F,) to the nearest centre (Eq. 3.9).

        Args:
            begun: samples were labelled by discovery before, so that none may be left within delta.
        """
        if self.delta is None:
            count = max(1, round(self.confine * len(nearest)))
            return np.sort(np.argsort(nearest, kind="stable")[:count])
        inside = np.flatnonzero(nearest <= self.delta)
        if len(inside) == 0 and not begun:
            raise DataError(
                f"discovery 'confined_entropy': no sample is within delta {self.delta} of a class "
                f"centre, the nearest is at {nearest.min():.6g}; raise delta, or set confine"
            )
        return inside


def vote_soft_labels(
    features: np.ndarray,
    labelled: np.ndarray,
    labels: np.ndarray,
    classes: int,
    beta: float,
    per_class: bool = True,
    block_bytes: int = 2**28,
) -> np.ndarray:
    """Compute soft labels: votes of the labelled samples, weighted by rank (Eq. 3.10, 3.11).

    Args:
        features: (F, D) of the samples that get a soft label.
        labelled: (L, D) of the labelled samples. Of two at the same distance, the first one counts
            as nearer.
        labels: (L,) their classes, 0 to ``classes`` - 1.
        beta: of the rank weight (Eq. 3.10).
        per_class: divide the votes of a class by the number of its samples.
        block_bytes: memory in bytes for a block of samples.

    Returns:
        (F, classes) float64, rows sum to 1.
    """
    count = len(labelled)
    votes = np.zeros((count, classes), np.float32)  # in column c the votes for class c
    votes[np.arange(count), labels] = 1
    if per_class:
        votes /= np.bincount(labels, minlength=classes)
    weights = (beta / (beta + np.arange(1, count + 1) / count)).astype(np.float32)
    middle = labelled.mean(0, dtype=np.float32)  # subtracted, so that squares stay small
    known = (labelled - middle).astype(np.float32)
    squares = np.einsum("ld,ld->l", known, known)
    rows = max(1, block_bytes // (28 * count))  # 28 bytes: keys, distances, weights
    soft = np.empty((len(features), classes))
    for begin in range(0, len(features), rows):
        block = (features[begin : begin + rows] - middle).astype(np.float32)
        order = _rank_nearest_first(block, known, squares)
        weight = np.empty(order.shape, np.float32)
        np.put_along_axis(weight, order, weights[None], axis=1)
        soft[begin : begin + rows] = weight @ votes
    return soft / soft.sum(1, keepdims=True)


def _rank_nearest_first(block: np.ndarray, known: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Rank the rows of ``known`` (L, D) by distance to each row of ``block`` (B, D): (B, L).

    This is a stable argsort, several times faster than numpy's. The bits of non-negative floats,
    read as whole numbers, have the same order as the floats; so keys of distance bits and position
    are sorted as whole numbers.

    Args:
        squares: (L,) squared lengths of ``known``.
    """
    distance = block @ known.T
    distance *= -2
    distance += squares
    distance += np.einsum("bd,bd->b", block, block)[:, None]
    np.maximum(distance, 0, out=distance)  # rounding can make it negative
    keys = distance.view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(len(known), dtype=np.uint64)
    keys.sort(axis=1)
    keys &= np.uint64(2**32 - 1)
    return keys.view(np.int64)


def compute_entropy(probabilities: np.ndarray) -> np.ndarray:
    """The entropy in bits of each row of probabilities (N, C) (Eq. 3.12)."""
    logs = np.log2(np.where(probabilities > 0, probabilities, 1))
    return -(probabilities * logs).sum(1)

"""Confined maximum entropy: labels samples near to known ones, and of those the least certain."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Interval

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import DataError
from fewlabels.ops.centres import class_centres, distances, unit
from fewlabels.ops.selection import pick
from fewlabels.registry import discovery


@discovery.register("confined_entropy")
class ConfinedEntropy:
    """Critical samples: near a class centre, and torn between classes (LMCS, Eq. 3.8-3.12).

    The confined set is what lies within Delta of a class centre (Eq. 3.9). There a sample gets a
    soft label, the vote of all labelled samples by their rank (Eq. 3.10, 3.11), and the samples of
    highest entropy (Eq. 3.12) get the class that won as their hard label. The score is minus the
    entropy in bits.

    Eq. 3.11 as printed lets the biggest class win once classes are unbalanced, since every labelled
    sample has a vote and no weight falls below beta / (beta + 1); so each class's votes are divided
    by its size, which changes nothing while classes are balanced. As in ``confident``, features are
    scaled to length 1 first.

    Args:
        confine: Delta as a share: the nearest of the unlabelled samples.
        delta: Delta as a distance, in place of ``confine``.
        confined: false: all unlabelled samples (Table 3.8).
        beta: of the rank weight beta / (beta + R / |Omega_L|), R = 1 for the nearest.
        order: take the highest or the lowest entropies (Table 3.8).
        per_class: divide each class's votes by the number of its labelled samples; false is the
            text.
        balance: the same number from each class instead of the best of all together.
        by: the model whose features are compared.
        normalise: scale features to length 1; false is the text.
        block_bytes: memory for the ranks of as many samples as fit.
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
        """One model's features."""
        return Needs(self.by)

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """At most ``budget`` samples with their labels; fewer where the confined set is smaller.

        Raises:
            DataError: no sample is labelled, features that are not finite, or a delta that leaves
                no sample.
        """
        labelled = np.flatnonzero(pool.labels >= 0)
        if len(labelled) == 0:
            raise DataError(
                "discovery 'confined_entropy' needs labelled samples to start from; set data.labels"
            )
        if not np.isfinite(pool.features).all():
            raise DataError("discovery 'confined_entropy' got features that are not finite")
        features = unit(pool.features) if self.normalise else pool.features
        known, centres = class_centres(features, pool.labels)
        # Entropies can be equal; in the data's order one class would win.
        free = rng.permutation(np.flatnonzero(pool.labels < 0))
        if self.confined and len(free):
            free = free[self._select_confined(distances(features, centres).min(1)[free])]
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
        # The least sure have the highest entropies.
        chosen = pick(score, labels, budget, self.order, None, self.balance, rng)
        chosen = chosen[free[chosen].argsort()]
        return Discovered(free[chosen], labels[chosen], score[chosen].astype(np.float32), centres)

    def _select_confined(self, nearest: np.ndarray) -> np.ndarray:
        """Positions of the confined set, by distances (F,) to the nearest centre (Eq. 3.9)."""
        if self.delta is None:
            count = max(1, round(self.confine * len(nearest)))
            return np.sort(np.argsort(nearest, kind="stable")[:count])
        inside = np.flatnonzero(nearest <= self.delta)
        if len(inside) == 0:
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
    """The vote of the labelled samples by their rank (Eq. 3.10, 3.11), a block at a time.

    Args:
        features: (F, D) of the samples that get a soft label.
        labelled: (L, D) of the labelled ones, nearest first for ranks; of two at one distance the
            one that stands first is nearer.
        labels: (L,) their classes, 0 to ``classes`` - 1.
        per_class: divide a class's votes by the number of its samples.

    Returns:
        (F, classes) float64, rows sum to 1.
    """
    count = len(labelled)
    votes = np.zeros((count, classes), np.float32)  # column c: who votes for c, and how strongly
    votes[np.arange(count), labels] = 1
    if per_class:
        votes /= np.bincount(labels, minlength=classes)
    weights = (beta / (beta + np.arange(1, count + 1) / count)).astype(np.float32)
    middle = labelled.mean(0, dtype=np.float32)  # about it squares are small, and differences exact
    known = (labelled - middle).astype(np.float32)
    squares = np.einsum("ld,ld->l", known, known)
    rows = max(1, block_bytes // (28 * count))  # 12 at once: distance and key, key and weight
    soft = np.empty((len(features), classes))
    for begin in range(0, len(features), rows):
        block = (features[begin : begin + rows] - middle).astype(np.float32)
        order = _rank_nearest_first(block, known, squares)
        weight = np.empty(order.shape, np.float32)
        np.put_along_axis(weight, order, weights[None], axis=1)
        soft[begin : begin + rows] = weight @ votes
    return soft / soft.sum(1, keepdims=True)


def _rank_nearest_first(block: np.ndarray, known: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """(B, L) positions among ``known`` (L, D), the nearest to each row of ``block`` (B, D) first.

    A stable argsort, several times faster than numpy's: the bits of floats that are not negative
    stand in the order of the floats, so one sort of whole numbers, bits and position, will do.
    """
    distance = block @ known.T
    distance *= -2
    distance += squares
    distance += np.einsum("bd,bd->b", block, block)[:, None]
    np.maximum(distance, 0, out=distance)  # rounding may leave less than nothing
    keys = distance.view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(len(known), dtype=np.uint64)
    keys.sort(axis=1)
    keys &= np.uint64(2**32 - 1)
    return keys.view(np.int64)


def compute_entropy(probabilities: np.ndarray) -> np.ndarray:
    """In bits, of each row (Eq. 3.12)."""
    logs = np.log2(np.where(probabilities > 0, probabilities, 1))
    return -(probabilities * logs).sum(1)

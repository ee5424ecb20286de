"""Confident: labels the unlabelled samples that are nearest to a class centre."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import DataError
from fewlabels.ops.centres import (
    class_centres,
    divide_by_second,
    l2_normalize,
    measure_distances,
)
from fewlabels.ops.selection import Select, select_samples
from fewlabels.registry import discovery


@discovery.register("confident")
class Confident:
    """Labels the unlabelled samples nearest to a class centre (Snowball, Eq. 2.8).

    A class centre is the mean feature of the labelled samples of a class. A sample gets the class
    of its nearest centre; its score is minus the distance. A class without labelled samples has no
    centre, so no sample gets that label.

    ``score: ratio`` divides the distance by that to the second nearest centre, which is not in the
    dissertation: a sample that is far from every centre, but from the others much more, is sure.

    Features (N, D) are scaled to length 1 first, unlike in the dissertation: the features of the
    most certain samples tend to be the longest, far from every mean. On CIFAR-10 with 4,000 labels
    and unscaled features the nearest samples were wrong more often than the farthest
    (docs/results/).

    Args:
        select: which samples of the confident pool (Table 2.9): the nearest (``min``), the farthest
            (``max``), or random ones.
        pool_factor: size of the confident pool, in budgets, filled with the nearest samples; null:
            every unlabelled sample. Snowball with MixMatch has 10 and ``select: max``.
        balance: take the same number from each class, not the best of all classes together.
        by: the model whose features are compared.
        fusion: how the models of the last three rounds are joined (Table 2.10): by their mean
            ``distance``, by concatenated features (``cascade``), or by a sample's mean ``rank`` in
            the three orders, with the labels of the newest model.
        normalise: scale features to length 1; false as in the dissertation.
        score: what is small for a sure sample: its ``distance``, or the ``ratio`` of its distances
            to the nearest and the second nearest centre.
        weigh: a label counts in the loss as much as it is certain: 1 - that ratio, which is 1 on
            the centre and 0 half way to another. false: as 1.

    Source: Li (2021), chapter 2, Eq. 2.8.
    Recipe: `discovery: {name: confident, by: master, select: max, pool_factor: 10}`
    """

    classes: int | None = None

    def __init__(
        self,
        *,
        select: Select = "min",
        pool_factor: Annotated[float, Ge(1)] | None = None,
        balance: bool = False,
        by: Literal["student", "teacher", "master"] = "master",
        fusion: Literal["none", "distance", "cascade", "rank"] = "none",
        normalise: bool = True,
        score: Literal["distance", "ratio"] = "distance",
        weigh: bool = False,
    ) -> None:
        self.select, self.pool_factor, self.balance = select, pool_factor, balance
        self.by, self.fusion, self.normalise, self.score = by, fusion, normalise, score
        self.weigh = weigh

    def needs(self) -> Needs:
        """The features of the model ``by``; with ``fusion`` also those of the two rounds before."""
        return Needs(self.by, history=0 if self.fusion == "none" else 2)

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """At most ``budget`` samples with their labels.

        Raises:
            DataError: no sample is labelled, or of one class alone where a ratio is asked for; or
                features that are not finite.
        """
        if not (pool.labels >= 0).any():
            raise DataError(
                "discovery 'confident' needs labelled samples to start from; set data.labels"
            )
        sets = [pool.features, *(pool.history if self.fusion != "none" else ())]
        if not all(np.isfinite(features).all() for features in sets):
            raise DataError("discovery 'confident' got features that are not finite")
        if self.normalise:
            sets = [l2_normalize(features) for features in sets]
        if self.fusion == "cascade":
            sets = [np.concatenate(sets, axis=1)]
        free = np.flatnonzero(pool.labels < 0)
        known, centres = class_centres(sets[0], pool.labels)
        all_distances = [
            measure_distances(features[free], class_centres(features, pool.labels)[1])
            for features in sets
        ]
        mean = np.mean(all_distances, axis=0)  # (F, C)
        nearest = all_distances[0] if self.fusion == "rank" else mean
        if (self.score == "ratio" or self.weigh) and len(known) < 2:
            raise DataError(
                "discovery 'confident' needs labelled samples of two classes for a ratio of "
                "distances; set score: distance and weigh: false"
            )
        measure = divide_by_second if self.score == "ratio" else partial(np.min, axis=1)
        labels, score = known[nearest.argmin(1)], -measure(nearest)
        if self.fusion == "rank":
            orders = [measure(d).argsort(kind="stable").argsort() for d in all_distances]
            score = -np.mean(orders, axis=0)
        chosen = select_samples(
            score, labels, budget, self.select, self.pool_factor, self.balance, rng
        )
        return Discovered(
            free[chosen],
            labels[chosen],
            score[chosen].astype(np.float32),
            centres if self.fusion != "cascade" else None,
            weights=self._weigh_labels(nearest[chosen]),
        )

    def _weigh_labels(self, distances: np.ndarray) -> np.ndarray | None:
        """Weights (M,) by distances (M, C) to all centres; None where they are not asked for."""
        return (1 - divide_by_second(distances)).astype(np.float32) if self.weigh else None

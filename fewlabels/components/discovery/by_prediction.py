"""ByPrediction: labels the samples that the classifier is most certain about."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import DataError
from fewlabels.ops.certainty import measure_certainty
from fewlabels.ops.class_mass import equalise_mass, measure_margins
from fewlabels.ops.label_graph import (
    build_neighbour_graph,
    separate_neighbours,
    spread_labels,
)
from fewlabels.ops.selection import Select, select_samples
from fewlabels.registry import discovery

UNREACHED = 1e-9
"""Added to what labels spread to, so that a sample that none reaches keeps its probabilities."""


@discovery.register("by_prediction")
class ByPrediction:
    """Labels samples by the classifier's largest probability (baseline of Snowball, Fig. 2.7).

    A sample gets its most likely class; its score is that probability. In ``single`` precision,
    in which classifiers usually give it, all probabilities within 3e-8 of 1 are 1: a network that
    was trained for long has no order among its surest samples, and random ones of them are taken.

    With ``mass: equal``, ``score: margin`` and ``relabel`` it is the discovery for a classifier in
    closed form: in each round all but the given labels are decided anew by a better classifier,
    and the surest of each class are kept.

    Args:
        select: which samples of the confident pool: the most certain (``min``, as of a distance),
            the least certain (``max``), or random ones.
        pool_factor: size of the confident pool, in budgets; null: every unlabelled sample.
        balance: take the same number from each class, not the best of all classes together.
        by: the model whose probabilities are used.
        precision: of the probabilities that are compared; ``single`` shows what rounding costs.
        mass: ``equal``: probabilities are first scaled so that each class has the same share of all
            samples; without it a classifier from few labels gives some classes most samples.
        score: what is large for a sure sample: its ``probability``, or the ``margin``, which is the
            logarithm of the largest probability by the second largest.
        neighbours: while only given labels are known, probabilities are multiplied by what these
            labels spread to along a graph of so many nearest neighbours; null: they are not.
        relabel: earlier discoveries are forgotten, and as many more samples are chosen; in the end
            all, whatever ``balance`` says.
        weigh: a label counts in the loss as much as it is certain: 1 - H(p) / log C, with H the
            entropy of the sample's probabilities p and C the number of classes (Iscen et al.,
            "Label propagation for deep semi-supervised learning", CVPR 2019). false: as 1.

    Source: Li (2021), chapter 2, Fig. 2.7.
    Recipe: `discovery: {name: by_prediction, by: student}`
    """

    classes: int | None = None

    def __init__(
        self,
        *,
        select: Select = "min",
        pool_factor: Annotated[float, Ge(1)] | None = None,
        balance: bool = False,
        by: Literal["student", "teacher", "master"] = "master",
        precision: Literal["double", "single"] = "double",
        mass: Literal["free", "equal"] = "free",
        score: Literal["probability", "margin"] = "probability",
        neighbours: Annotated[int, Ge(1)] | None = None,
        relabel: bool = False,
        weigh: bool = False,
    ) -> None:
        self.select, self.pool_factor = select, pool_factor
        self.balance, self.by, self.precision, self.weigh = balance, by, precision, weigh
        self.mass, self.score, self.relabel = mass, score, relabel
        self.neighbours = neighbours

    @staticmethod
    def _equalise(pool: Pool) -> np.ndarray:
        """Shares (N, C) with equal mass of the classes that have a label; no other has any."""
        assert pool.probabilities is not None
        known = np.unique(pool.labels[pool.labels >= 0])
        shares = np.zeros(pool.probabilities.shape)
        shares[:, known] = equalise_mass(pool.probabilities[:, known])
        return shares

    def _spread_given(self, pool: Pool, neighbours: int) -> np.ndarray:
        """Shares (N, C) of what the given labels spread to, as sure as a graph can be."""
        assert pool.probabilities is not None
        graph = build_neighbour_graph(separate_neighbours(pool.features, neighbours), neighbours)
        known = np.where(pool.given, pool.labels, -1)
        return equalise_mass(spread_labels(graph, known, pool.probabilities.shape[1]) + UNREACHED)

    def needs(self) -> Needs:
        """The probabilities (N, C) of the model ``by``."""
        return Needs(self.by, probabilities=True)

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """At most ``budget`` samples more with their labels.

        Raises:
            DataError: no probabilities, or some that are not finite.
        """
        if pool.probabilities is None or not np.isfinite(pool.probabilities).all():
            raise DataError(
                "discovery 'by_prediction' needs a classifier's probabilities, all of them finite"
            )
        # Many probabilities can be exactly 1. The order is random, so that such ties do not favour
        # the class that comes first in the data.
        if self.relabel:
            budget += int(((pool.labels >= 0) & ~pool.given).sum())
        free = rng.permutation(np.flatnonzero(~pool.given if self.relabel else pool.labels < 0))
        kind = np.float32 if self.precision == "single" else np.float64
        shares = pool.probabilities
        if self.mass == "equal":
            shares = self._equalise(pool)
        if self.neighbours is not None and not (~pool.given & (pool.labels >= 0)).any():
            shares = shares * self._spread_given(pool, self.neighbours)
        certain = shares[free].astype(kind)
        labels = certain.argmax(1)
        score = measure_margins(certain) if self.score == "margin" else certain.max(1)
        balance = self.balance and not (self.relabel and budget >= len(free))
        chosen = select_samples(score, labels, budget, self.select, self.pool_factor, balance, rng)
        chosen = chosen[free[chosen].argsort()]
        certainty = measure_certainty(shares[free[chosen]]).astype(np.float32)
        return Discovered(
            free[chosen],
            labels[chosen],
            score[chosen].astype(np.float32),
            weights=certainty if self.weigh else None,
            merge="replace" if self.relabel else "add",
        )

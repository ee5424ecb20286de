"""ByPrediction: labels the samples of which the classifier is most certain."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import DataError
from fewlabels.ops.selection import Select, select_samples
from fewlabels.registry import discovery


@discovery.register("by_prediction")
class ByPrediction:
    """Labels by the classifier's own largest probability (Fig. 2.7).

    The baseline that the distance to a class centre has to beat.

    Args:
        select: of the confident pool: the surest (min, as of a distance), the least sure, or any.
        pool_factor: the confident pool holds this many times the budget; null: every sample.
        balance: the same number from each class instead of the best of all together.
        by: the model whose probabilities are read.
    """

    classes: int | None = None

    def __init__(
        self,
        *,
        select: Select = "min",
        pool_factor: Annotated[float, Ge(1)] | None = None,
        balance: bool = False,
        by: Literal["student", "teacher", "master"] = "master",
    ) -> None:
        self.select, self.pool_factor = select, pool_factor
        self.balance, self.by = balance, by

    def needs(self) -> Needs:
        """One model's probabilities."""
        return Needs(self.by, probabilities=True)

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """At most ``budget`` samples with their labels; the score is the probability.

        Raises:
            DataError: no probabilities, or some that are not finite.
        """
        if pool.probabilities is None or not np.isfinite(pool.probabilities).all():
            raise DataError(
                "discovery 'by_prediction' needs a classifier's probabilities, all of them finite"
            )
        # Many probabilities can be 1 to the last digit; in the data's order one class would win.
        free = rng.permutation(np.flatnonzero(pool.labels < 0))
        certain = pool.probabilities[free]
        labels, score = certain.argmax(1), certain.max(1)
        chosen = select_samples(
            score, labels, budget, self.select, self.pool_factor, self.balance, rng
        )
        chosen = chosen[free[chosen].argsort()]
        return Discovered(free[chosen], labels[chosen], score[chosen].astype(np.float32))

"""How often a classifier's answers are right, by how sure it must be to give one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, FailFast, model_validator
from scipy.special import betaincinv
from typing_extensions import Self

from fewlabels.errors import ModelError

CERTAIN = 0.9
"""How sure a precision is that held-out images bear out: the confidence of a one-sided interval.

By the plain share of right answers about half of all thresholds fall short of the wish on other
images (docs/commands.md).
"""
SHOWN = (0.9, 0.95, 0.99)
"""Wished precisions that a card tells the thresholds of."""


class PrecisionPoint(BaseModel):
    """A threshold on an image's largest probability, and what it did to held-out images.

    Attributes:
        threshold: images whose largest probability is at least this are answered.
        answered: how many held-out images are.
        right: how many of these get their own class.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    threshold: Annotated[float, Ge(0), Le(1)]
    answered: Annotated[int, Ge(1)]
    right: Annotated[int, Ge(1)]

    @property
    def precision(self) -> float:
        """The share of right answers that the held-out images bear out; see :data:`CERTAIN`."""
        return float(find_lower_end(self.right, self.answered))


class PrecisionCurve(BaseModel):
    """What held-out images say about each threshold worth choosing.

    Attributes:
        images: how many images were held out.
        points: by rising threshold and rising precision; of equal precision the lowest threshold.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    images: Annotated[int, Gt(0)]
    points: Annotated[list[PrecisionPoint], FailFast()]

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if any(not point.right <= point.answered <= self.images for point in self.points):
            raise ValueError("more right answers than answers, or more answers than images")
        if any(a.threshold >= b.threshold for a, b in zip(self.points, self.points[1:])):
            raise ValueError("its thresholds do not rise")
        return self

    def find_point(self, min_precision: float) -> PrecisionPoint:
        """The lowest threshold at which the held-out images bear out a precision.

        Raises:
            ModelError: no share, or a precision that no threshold reaches; it says what can be.
        """
        check_precision(min_precision)
        for point in self.points:
            if point.precision >= min_precision:
                return point
        best = self.points[-1] if self.points else None
        can = (
            f"{math.floor(1000 * best.precision) / 1000:g} can be, from probability "
            f"{best.threshold:.4f} on ({best.right} of {best.answered} answers right): wish that"
            if best
            else "none of them is answered rightly: train longer"
        )
        raise ModelError(
            f"precision {min_precision:g} is not borne out by {self.images} held-out images; "
            f"{can}, hold out more (data.validation; {min_precision:g} takes "
            f"{count_needed(min_precision)}, all answered rightly), or give a threshold of your own"
        )

    def describe_wishes(self, wishes: Sequence[float] = SHOWN) -> list[str]:
        """A sentence for each wished precision: its threshold, and what comes of it."""
        return [self._describe_wish(wish) for wish in wishes]

    def _describe_wish(self, wish: float) -> str:
        try:
            point = self.find_point(wish)
        except ModelError:
            return f"{wish:g} is not borne out by {self.images} held-out images"
        return f"{wish:g} from probability {point.threshold:.4f} on: {self.describe_point(point)}"

    def describe_point(self, point: PrecisionPoint) -> str:
        """What a threshold did to the held-out images: coverage and precision."""
        return (
            f"of {self.images} held-out images {point.answered} are answered "
            f"({point.answered / self.images:.1%}) and {point.right} of these rightly "
            f"({point.right / point.answered:.1%})"
        )


def measure_precision(probabilities: np.ndarray, truth: np.ndarray) -> PrecisionCurve:
    """The curve of a classifier on labelled images that it was not trained on.

    Source: C. J. Clopper and E. S. Pearson, Biometrika 26, 1934 (the lower end).

    Args:
        probabilities: (N, C).
        truth: (N,) classes, all known.
    """
    sure, right = probabilities.max(1), probabilities.argmax(1) == truth
    thresholds, place = np.unique(sure, return_inverse=True)  # rising
    answered = np.bincount(place)[::-1].cumsum()[::-1]
    correct = np.bincount(place, weights=right)[::-1].cumsum()[::-1].astype(np.int64)
    points, best = [], 0.0
    for i, precision in enumerate(find_lower_end(correct, answered)):
        if precision > best:
            best = precision
            counts = {"answered": int(answered[i]), "right": int(correct[i])}
            points.append(PrecisionPoint(threshold=float(thresholds[i]), **counts))
    return PrecisionCurve(images=len(truth), points=points)


def find_lower_end(right: int | np.ndarray, answered: int | np.ndarray) -> np.ndarray:
    """The lower end of the one-sided binomial interval of a share; 0 where nothing is right."""
    right, answered = np.asarray(right, np.float64), np.asarray(answered, np.float64)
    low = betaincinv(np.maximum(right, 1), answered - right + 1, 1 - CERTAIN)
    return np.where(right > 0, low, 0.0)


def count_needed(precision: float) -> int:
    """How many held-out images bear out a precision if all are answered rightly."""
    return math.ceil(math.log(1 - CERTAIN) / math.log(precision))


def check_precision(precision: float) -> None:
    """Refuse what is no share of right answers.

    Raises:
        ModelError: so.
    """
    if not 0 < precision < 1:  # nor NaN
        raise ModelError(
            f"precision {precision:g}: expected a share of answers above 0 and below 1, as in 0.95"
        )

"""How sure an error is, and whether one classifier beats another on the same images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import betainc, betaincinv

CERTAIN = 0.95
"""Confidence of the intervals, and one minus the chance that a difference may have to be luck."""


def find_binomial_interval(hits: int, count: int) -> tuple[float, float]:
    """The ends of the two-sided 95 % interval of a share; (0, 1) without a count.

    Source: C. J. Clopper and E. S. Pearson, Biometrika 26, 1934.
    """
    tail = (1 - CERTAIN) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return low, high


class Paired(NamedTuple):
    """Two classifiers on the same images: how many the second gets right and the first does not,
    and the reverse."""

    gained: int
    lost: int

    @property
    def chance(self) -> float:
        """How likely counts as unequal as these are where both are equally good.

        Source: the exact two-sided sign test (McNemar, Psychometrika 12, 1947).
        """
        fewer, both = min(self.gained, self.lost), self.gained + self.lost
        if 2 * fewer == both:
            return 1.0
        return float(min(1.0, 2 * betainc(both - fewer, fewer + 1, 0.5)))


def compare_answers(first: np.ndarray, second: np.ndarray, truth: np.ndarray) -> Paired:
    """The paired counts of two answers (N,), class numbers, of images of classes ``truth`` (N,)."""
    one, two = first == truth, second == truth
    return Paired(int((two & ~one).sum()), int((one & ~two).sum()))


def describe_error(answers: np.ndarray, truth: np.ndarray) -> str:
    """The share of wrong answers (N,) in percent, with its interval and the counts."""
    wrong = int((answers != truth).sum())
    low, high = (100 * end for end in find_binomial_interval(wrong, len(truth)))
    share = 100 * wrong / max(1, len(truth))
    return f"{share:.1f} % wrong ({low:.1f} to {high:.1f}), {wrong:,} of {len(truth):,}"

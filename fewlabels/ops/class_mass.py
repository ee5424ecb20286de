"""Shares of classes that are made fair: each class gets the same of all samples."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

PASSES = 30
SHARPNESS = 30.0
"""Power of shares at which masses are compared, so that decisions are balanced and not doubts."""
LEAST = 1e-30
"""Of a share, so that a class that nobody wants is not divided by zero."""


def equalise_mass(
    shares: np.ndarray, sharpness: float = SHARPNESS, passes: int = PASSES
) -> np.ndarray:
    """Shares (N, C) >= 0 times a factor for each class, by which all classes get equal mass.

    Columns and rows of ``shares ** sharpness`` are scaled in turns to sums of N / C and 1 (Sinkhorn
    and Knopp). With a large power the mass of a class is the number of samples whose largest share
    it is; with 1 it is the sum of its shares, which a classifier full of doubts gives all alike.

    Returns:
        (N, C) float64; rows sum to 1. The order of two samples by the odds of two classes stays.

    Source: Sinkhorn and Knopp, Pacific Journal of Mathematics 1967; for class mass Zhu et al.,
    "Semi-supervised learning using Gaussian fields and harmonic functions", ICML 2003.
    """
    logs = np.log(np.maximum(shares.astype(np.float64), LEAST))
    factors = np.zeros(logs.shape[1])
    for _ in range(passes):
        balanced = sharpness * (logs + factors)
        balanced -= logsumexp(balanced, axis=1, keepdims=True)
        factors -= logsumexp(balanced, axis=0) / sharpness
    fair = logs + factors
    return np.exp(fair - logsumexp(fair, axis=1, keepdims=True))


def measure_margins(shares: np.ndarray) -> np.ndarray:
    """The logarithm of the largest share of each row (N, C) by the second largest: (N,) >= 0."""
    first, second = -np.partition(-np.log(np.maximum(shares, LEAST)), 1, axis=1)[:, :2].T
    return first - second

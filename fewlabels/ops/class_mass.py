"""Shares of classes that are made fair: each class gets the same of all samples."""

from __future__ import annotations

import numpy as np

PASSES = 30
LEAST = 1e-30
"""Of a share, so that a class that nobody wants is not divided by zero."""


def equalise_mass(shares: np.ndarray, passes: int = PASSES) -> np.ndarray:
    """Shares (N, C) >= 0 whose rows sum to 1 and whose columns nearly to N / C.

    Columns and rows are scaled in turns (Sinkhorn and Knopp), which multiplies each class by a
    factor of its own: the order of two samples within a class may change, never by which class a
    sample is likelier when both have the same factor.

    Source: Sinkhorn and Knopp, Pacific Journal of Mathematics 1967; for class mass Zhu et al.,
    "Semi-supervised learning using Gaussian fields and harmonic functions", ICML 2003.
    """
    found = np.maximum(shares.astype(np.float64), LEAST)
    for _ in range(passes):
        found /= found.sum(0)
        found /= found.sum(1, keepdims=True)
    return found


def measure_margins(shares: np.ndarray) -> np.ndarray:
    """The logarithm of the largest share of each row (N, C) by the second largest: (N,) >= 0."""
    first, second = -np.partition(-np.log(np.maximum(shares, LEAST)), 1, axis=1)[:, :2].T
    return first - second

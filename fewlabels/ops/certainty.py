"""How certain a class is, from shares of all classes."""

from __future__ import annotations

import numpy as np


def measure_certainty(shares: np.ndarray) -> np.ndarray:
    """1 - H / log C of each row (N, C) of shares >= 0, made to sum to 1: (N,) in [0, 1].

    H is the entropy of a row: 1 is one class alone, 0 that all are alike. Of a single class it is
    1, and of a row of zeros 0.

    Source: Iscen et al., "Label propagation for deep semi-supervised learning", CVPR 2019.
    """
    count = shares.shape[1]
    sums = shares.sum(1, keepdims=True, dtype=np.float64)
    parts = np.divide(shares, sums, where=sums > 0, out=np.full(shares.shape, 1 / max(1, count)))
    logs = np.log(parts, where=parts > 0, out=np.zeros_like(parts))
    entropy = -(parts * logs).sum(1)
    return np.clip(1 - entropy / np.log(max(2, count)), 0, 1)

"""Which pairs of images are worth matching: the nearest by embedding."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fewlabels.ops.centres import l2_normalize

BLOCK = 2**26
"""Similarities that are computed at once."""


def find_candidates(
    features: np.ndarray,
    labels: np.ndarray,
    neighbours: int | Literal["all"],
    across: bool = False,
) -> np.ndarray:
    """Pair each labelled image with the nearest, by cosine, of its label, or ``across`` all labels.

    Returns:
        (P, 2) positions i < j.
    """
    features = l2_normalize(features)
    groups = [labels >= 0] if across else [labels == n for n in np.unique(labels[labels >= 0])]
    pairs = set()
    for own in map(np.flatnonzero, groups):
        count = len(own) - 1 if neighbours == "all" else min(neighbours, len(own) - 1)
        step = max(1, BLOCK // max(1, len(own)))
        for start in range(0, len(own), step):
            rows = own[start : start + step]
            distance = -(features[rows] @ features[own].T)
            distance[np.arange(len(rows)), start + np.arange(len(rows))] = np.inf  # itself
            nearest = np.argpartition(distance, count, axis=1)[:, :count]
            for i, mates in zip(rows.tolist(), own[nearest].tolist(), strict=True):
                pairs |= {(min(i, j), max(i, j)) for j in mates}
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)

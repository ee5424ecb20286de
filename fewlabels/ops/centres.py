"""Class centres, and distances to them."""

from __future__ import annotations

import numpy as np


def l2_normalize(features: np.ndarray) -> np.ndarray:
    """Scale each row (N, D) to length 1; rows of zeros stay."""
    features = features.astype(np.float32)  # a copy; squares of float16 overflow
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features /= np.where(lengths > 0, lengths, 1)
    return features


def class_centres(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes (C,) in ``labels`` (N,), and their mean features (C, D) (Eq. 2.8, 3.8)."""
    known, where = np.unique(labels[labels >= 0], return_inverse=True)
    sums = np.zeros((len(known), features.shape[1]))
    np.add.at(sums, where, features[labels >= 0].astype(np.float64))
    return known, (sums / np.bincount(where)[:, None]).astype(np.float32)


def measure_distances(
    features: np.ndarray, centres: np.ndarray, block_bytes: int = 2**27
) -> np.ndarray:
    """Euclidean distances (N, C) float64, computed for a block of rows and one centre at a time.

    Differences are squared directly, so a sample on a centre has distance exactly 0; a matrix
    product would give a rounding error instead.
    """
    rows = max(1, block_bytes // (32 * features.shape[1]))  # a block, its difference, squares twice
    result = np.empty((len(features), len(centres)))
    for begin in range(0, len(features), rows):
        block = features[begin : begin + rows].astype(np.float64)
        for column, centre in enumerate(centres):
            result[begin : begin + rows, column] = np.linalg.norm(block - centre, axis=1)
    return result


def divide_by_second(distances: np.ndarray) -> np.ndarray:
    """The smallest of each row (N, C) divided by the second smallest: 0 is sure, 1 a tie (N,)."""
    first, second = np.partition(distances, 1, axis=1)[:, :2].T
    return np.divide(first, second, out=np.ones(len(first)), where=second > 0)

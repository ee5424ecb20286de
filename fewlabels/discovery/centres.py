"""Class centres, and distances to them."""

from __future__ import annotations

import numpy as np


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay."""
    features = features.astype(np.float32)  # squares of float16 overflow
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def class_centres(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes (C,) that ``labels`` (N,) hold, and their mean features (C, D) (Eq. 2.8, 3.8)."""
    known, where = np.unique(labels[labels >= 0], return_inverse=True)
    sums = np.zeros((len(known), features.shape[1]))
    np.add.at(sums, where, features[labels >= 0].astype(np.float64))
    return known, (sums / np.bincount(where)[:, None]).astype(np.float32)


def distances(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Euclidean distances (N, C); a column a centre, so that memory stays that of the answer."""
    features = features.astype(np.float64)
    return np.stack([np.linalg.norm(features - centre, axis=1) for centre in centres], axis=1)

"""Compares what discoveries have found."""

from __future__ import annotations

import numpy as np

from fewlabels.contracts import Discovered, Pool


def list_weights(found: Discovered) -> np.ndarray:
    """The weight (M,) of each label."""
    return np.ones(len(found.labels)) if found.weights is None else found.weights


def map_labels(pool: Pool, found: Discovered) -> dict[int, int]:
    """The discovered labels, by data-set row."""
    return dict(zip(pool.rows[found.indices].tolist(), found.labels.tolist(), strict=True))


def check_same(one: Discovered, two: Discovered, said: str) -> None:
    """Fail, with the sentence ``said``, where two answers differ."""
    for name in ("indices", "labels", "scores"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), f"{said} ({name})")
    np.testing.assert_array_equal(list_weights(one), list_weights(two), f"{said} (weights)")
    assert (one.pairs is None) == (two.pairs is None), said
    if one.pairs is not None and two.pairs is not None:
        for name in ("left", "right", "affine", "scores"):
            first, second = getattr(one.pairs, name), getattr(two.pairs, name)
            np.testing.assert_array_equal(first, second, f"{said} (pairs.{name})")

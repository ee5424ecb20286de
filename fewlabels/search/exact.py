"""Exact search by cosine: equal images tie, and a tie is in the order of the index."""

from __future__ import annotations

import faiss
import numpy as np

from fewlabels.errors import ModelError

ERROR = 2**-16
"""More than float32 can be wrong by in a cosine."""


def cosine_similarities(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosines of unit vectors (N, D) to a query (D,), in steps of 2^-24: (N,) float64.

    A product sums in another order at its edges, so copies of an image would differ in the last
    bit; a product in float64 is a billionth of a step off, and rounding takes that away.
    """
    product = vectors.astype(np.float64) @ query.astype(np.float64)
    return np.clip(np.round(product * 2**24) / 2**24, -1, 1)


def rank_rows(
    vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best of some rows, best first, ties by row: rows (k,) and cosines (k,).

    Raises:
        ModelError: their vectors are not finite.
    """
    found = vectors[rows]
    if rows.min(initial=0) < 0 or not np.isfinite(found).all():  # -1: faiss found no more
        raise ModelError("the index holds vectors that are not finite; build it again, or copy it")
    scores = cosine_similarities(found, query)
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


def search_exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest rows of each query, by faiss.

    Args:
        vectors: (N, D) float32 of unit length; may lie on disk.
        queries: (Q, D), likewise.
        k: at most N.

    Returns:
        rows (Q, k) int64 and cosines (Q, k) float64, best first.
    """
    # One more than asked tells whether others tie with the last.
    wide = min(k + 1, len(vectors))
    rough, near = faiss.knn(queries, vectors, wide, faiss.METRIC_INNER_PRODUCT)
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k))
    for i, query in enumerate(queries):
        among = near[i]
        if wide > k and rough[i, k] > rough[i, k - 1] - ERROR:
            among = np.flatnonzero(vectors @ query > rough[i, k - 1] - ERROR)
        rows[i], scores[i] = rank_rows(vectors, query, among, k)
    return rows, scores

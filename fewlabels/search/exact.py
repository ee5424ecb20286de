"""Exact search by cosine; equal images get equal scores, and ties are in the order of the index."""

from __future__ import annotations

import faiss
import numpy as np

from fewlabels.errors import ModelError

ERROR = 2**-16
"""An upper bound of the rounding error of a cosine computed in float32."""


def cosine_similarities(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosines of unit vectors (N, D) to a query (D,), rounded to multiples of 2^-24: (N,) float64.

    A matrix product sums in another order at its edges, so the scores of two copies of an image
    could differ in the last bit. In float64 that error is a billionth of the rounding step.
    """
    product = vectors.astype(np.float64) @ query.astype(np.float64)
    return np.clip(np.round(product * 2**24) / 2**24, -1, 1)


def rank_rows(
    vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` given rows of largest cosine, best first, ties by row: rows (k,), cosines (k,).

    Raises:
        ModelError: a vector of these rows is not finite.
    """
    found = vectors[rows]
    if rows.min(initial=0) < 0 or not np.isfinite(found).all():  # -1: faiss found no more
        raise ModelError("the index holds vectors that are not finite; build it again, or copy it")
    scores = cosine_similarities(found, query)
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


def search_exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the ``k`` rows nearest to each query with faiss.

    Args:
        vectors: (N, D) float32 of unit length; may be a memory map.
        queries: (Q, D) float32 of unit length.
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

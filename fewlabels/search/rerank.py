"""Query expansion and k-reciprocal re-ranking, which use the neighbours of a first search."""

from __future__ import annotations

import numpy as np


def expand_query(
    query: np.ndarray, found: np.ndarray, cosines: np.ndarray, alpha: float
) -> np.ndarray:
    """Alpha-weighted query expansion (Radenovic et al., TPAMI 2018).

    The new query is a weighted sum. The query has weight 1, and a found image its cosine to the
    power of ``alpha`` (3 in the paper), or 0 if the cosine is negative.

    Args:
        query: (D,) of unit length.
        found: (n, D) vectors of the found images, of unit length.
        cosines: (n,) cosines of the found images to the query.

    Returns:
        (D,) float32 of unit length.
    """
    weights = np.where(cosines > 0, np.maximum(cosines, 0) ** alpha, 0)
    moved = query + weights @ found
    return (moved / max(np.linalg.norm(moved), 1e-12)).astype(np.float32)


def rerank_neighbours(
    query: np.ndarray, found: np.ndarray, k1: int = 20, k2: int = 6, blend: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017): images that share neighbours are near.

    The distance is the paper's ``(1 - blend) * jaccard + blend * d``, with its k1, k2 and blend. It
    is computed over the query and the found images only, not the whole index, and with
    ``d = 1 - cosine``, so that scores of different queries are comparable. As in the authors' code,
    the rows of V sum to 1.

    Args:
        query: (D,) of unit length.
        found: (n, D) of unit length, best first; ties keep this order.
        k1: number of nearest neighbours among which reciprocal ones are sought.
        k2: number of neighbours over which an image's row of V is averaged.

    Returns:
        The new order (n,) as indices into ``found``, and 1 minus the distance (n,) in that order.
    """
    rows = np.vstack([query[None], found]).astype(np.float64)  # the query is row 0
    distance = 1 - np.clip(rows @ rows.T, -1, 1)  # (n + 1, n + 1)
    ranked = np.round(distance * 2**24)
    np.fill_diagonal(ranked, -1)  # an image is its own nearest, copies or not
    place = ranked.argsort(1, kind="stable").argsort(1)

    near, half = (_find_reciprocal(place <= k) for k in (k1, round(k1 / 2)))
    # Eq. 5: half a neighbour's neighbourhood joins when two thirds of it are mine already.
    shared = near.astype(float) @ half.T
    joins = near & (3 * shared >= 2 * half.sum(1))
    members = near | (joins.astype(float) @ half > 0)

    v = np.where(members, np.exp(-distance), 0)  # Eq. 7
    v /= v.sum(1, keepdims=True)
    nearest = (place < max(k2, 1)).astype(float)
    v = nearest @ v / nearest.sum(1, keepdims=True)  # Eq. 11
    overlap = np.minimum(v[0], v[1:]).sum(1)
    jaccard = overlap / (2 - overlap)  # a similarity; minima and maxima sum to 2 together
    scores = (1 - blend) * jaccard + blend * (1 - distance[0, 1:])
    order = np.round(-scores * 2**24).argsort(kind="stable")
    return order, scores[order]


def _find_reciprocal(near: np.ndarray) -> np.ndarray:
    return near & near.T

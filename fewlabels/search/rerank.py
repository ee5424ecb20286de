"""Two ways to a better ranking that look at the neighbours of what was found."""

from __future__ import annotations

import numpy as np


def expand_query(
    query: np.ndarray, found: np.ndarray, cosines: np.ndarray, alpha: float
) -> np.ndarray:
    """Alpha-weighted query expansion (Radenovic et al., TPAMI 2018): a query moves to its results.

    A query counts 1 and an image its cosine to the power of ``alpha`` (3 in the paper), or nothing
    if that is negative.

    Args:
        query: (D,) of unit length.
        found: (n, D), likewise.
        cosines: (n,), theirs to the query.

    Returns:
        (D,) float32 of unit length.
    """
    weights = np.where(cosines > 0, np.maximum(cosines, 0) ** alpha, 0)
    moved = query + weights @ found
    return (moved / max(np.linalg.norm(moved), 1e-12)).astype(np.float32)


def rerank_neighbours(
    query: np.ndarray, found: np.ndarray, k1: int = 20, k2: int = 6, blend: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017), by shared neighbours.

    The paper's distance ``(1 - blend) * jaccard + blend * d``, with its k1, k2 and blend, over the
    query and what it found rather than the whole index, and with ``d = 1 - cosine``: both terms
    then mean the same in every list. As in the authors' code, the rows of V sum to 1.

    Args:
        query: (D,) of unit length.
        found: (n, D), likewise; best first, since ties keep this order.
        k1: neighbours to look for reciprocal ones among.
        k2: neighbours that an image's neighbourhood is averaged over.

    Returns:
        the new order (n,), and in that order 1 minus the distance (n,).
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

"""k-means by faiss, with an optional warm start; the nearest centres of features."""

from __future__ import annotations

import faiss
import numpy as np

from fewlabels.errors import DataError


def cluster_kmeans(
    features: np.ndarray,
    clusters: int,
    *,
    iterations: int = 20,
    seed: int = 0,
    start: np.ndarray | None = None,
    spherical: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster features (N, D).

    Args:
        start: (clusters, D) initial centres, so that cluster numbers stay comparable; of another
            shape they are ignored.
        spherical: centres have unit length, and a row belongs to the most similar one.

    Returns:
        centres (clusters, D) float32, and the cluster of each row (N,) int64. Some clusters may be
        empty where rows are equal.

    Raises:
        DataError: more clusters than rows, or features or ``start`` that are not finite.
    """
    rows = np.array(features, np.float32, order="C")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise DataError(f"k-means takes features (N, D), got an array of shape {rows.shape}")
    if len(rows) < clusters:
        raise DataError(
            f"k-means cannot make {clusters} clusters of {len(rows)} images; lower clusters"
        )
    if not np.isfinite(rows).all():
        raise DataError("k-means got features that are not finite; lower optimizer.lr")
    if start is not None and start.shape != (clusters, rows.shape[1]):
        start = None  # of another model or number of clusters
    if start is not None:
        start = np.ascontiguousarray(start, np.float32)
        if not np.isfinite(start).all():  # faiss would end the process
            raise DataError("k-means got centres to start with that are not finite; start without")
    engine = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=iterations,
        seed=seed % 2**31,
        spherical=spherical,
        # faiss would use 256 rows a cluster, and warn below 39.
        max_points_per_centroid=max(1, len(rows)),
        min_points_per_centroid=1,
    )
    engine.train(rows, init_centroids=start)
    centres = np.asarray(engine.centroids).reshape(clusters, -1).copy()
    return centres, find_nearest_centres(rows, centres, 1, spherical)[1][:, 0]


def find_nearest_centres(
    features: np.ndarray, centres: np.ndarray, k: int = 2, spherical: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest centres of each row.

    Returns:
        (N, k) inner products if ``spherical``, else squared Euclidean distances; and (N, k) int64
        numbers of the centres, nearest first.

    Raises:
        DataError: fewer than ``k`` centres, or of another width.
    """
    if len(centres) < k or centres.shape[1:] != features.shape[1:]:
        raise DataError(
            f"cannot find the {k} nearest of centres {centres.shape} to features {features.shape}; "
            f"give at least {k} centres of the features' width"
        )
    make = faiss.IndexFlatIP if spherical else faiss.IndexFlatL2
    index = make(centres.shape[1])
    index.add(np.ascontiguousarray(centres, np.float32))
    values, numbers = index.search(np.ascontiguousarray(features, np.float32), k)
    return values, numbers.astype(np.int64)

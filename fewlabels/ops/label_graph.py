"""A graph of nearest neighbours among samples, and labels that spread along it."""

from __future__ import annotations

import faiss
import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import cg

from fewlabels.ops.centres import l2_normalize


def connect_neighbours(
    features: np.ndarray, neighbours: int, power: float = 3.0, mutual: bool = False
) -> csr_array:
    """The symmetric graph (N, N) of the nearest neighbours by cosine.

    An edge weighs the cosine to a power, a negative one nothing; where both samples are among each
    other's neighbours it counts twice.

    Args:
        features: (N, D) of length 1.
        mutual: an edge needs both samples to be among each other's neighbours, and counts once.

    Source: Iscen et al., "Label propagation for deep semi-supervised learning", CVPR 2019.
    """
    features = np.ascontiguousarray(features)
    count = len(features)
    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features)
    cosines, near = index.search(features, min(neighbours + 1, count))
    rows = np.arange(count).repeat(near.shape[1])
    other = near.ravel() != rows  # a sample is not its own neighbour
    weights = np.maximum(cosines.ravel(), 0).astype(float) ** power
    directed = csr_array((weights[other], (rows[other], near.ravel()[other])), (count, count))
    return (directed.minimum(directed.T) if mutual else directed + directed.T).tocsr()


def normalise_graph(graph: csr_array) -> csr_array:
    """A graph whose rows and columns are divided by the roots of their sums."""
    degrees = graph.sum(1)
    scale = diags_array(np.divide(1, np.sqrt(degrees), where=degrees > 0, out=0 * degrees))
    return (scale @ graph @ scale).tocsr()


def build_neighbour_graph(features: np.ndarray, neighbours: int) -> csr_array:
    """The normalised graph (N, N) of the nearest neighbours by cosine of features (N, D)."""
    return normalise_graph(connect_neighbours(l2_normalize(features), neighbours))


def separate_neighbours(
    features: np.ndarray, neighbours: int = 10, kept: int = 320, ridge: float = 0.1
) -> np.ndarray:
    """Features (N, kept / 2) in which neighbours are near each other and all samples far apart.

    Samples that are nearest to each other are mostly of one class, so their differences tell the
    covariance within classes before any label is known: these are the directions of the largest
    covariance of all samples by that of neighbours, among the first ``kept`` principal axes.

    Args:
        features: (N, D).
        ridge: share of the mean variance of neighbours that is added to each of theirs.

    Source: our own; discriminant analysis (Fisher, 1936) with neighbours in place of classes.
    """
    centred = features.astype(np.float32) - features.mean(0, dtype=np.float64).astype(np.float32)
    kept = min(kept, *centred.shape)
    axes = eigh(centred.T @ centred)[1][:, ::-1][:, :kept]
    centred = np.ascontiguousarray(centred @ axes)
    index = faiss.IndexFlatIP(kept)
    unit = l2_normalize(centred)
    index.add(unit)
    near = index.search(unit, min(neighbours + 1, len(unit)))[1]
    within = np.zeros((kept, kept))
    for column in near.T:
        apart = centred - centred[column]
        within += apart.T @ apart
    within /= 2 * near.size
    within[np.diag_indices(kept)] += ridge * np.trace(within) / kept + np.finfo(np.float32).tiny
    best = eigh(centred.T @ centred / len(centred), within)[1][:, ::-1]
    return centred @ best[:, : max(1, kept // 2)].astype(np.float32)


def spread_labels(
    graph: csr_array, labels: np.ndarray, classes: int, alpha: float = 0.99
) -> np.ndarray:
    """What each class's labels give every sample: (N, C) >= 0 of (I - alpha S) Z = Y.

    The labelled samples of a class share its mass, so that one with many labels is not favoured.

    Args:
        graph: S, as :func:`build_neighbour_graph` gives it.
        labels: (N,), -1 = none.
        alpha: share of a sample's labels that come from its neighbours.
    """
    system = (eye_array(len(labels)) - alpha * graph).tocsr()
    found = np.zeros((len(labels), classes))
    for label in np.unique(labels[labels >= 0]):
        own = (labels == label).astype(float)
        found[:, label] = cg(system, own / own.sum(), rtol=1e-6)[0]
    return np.maximum(found, 0)

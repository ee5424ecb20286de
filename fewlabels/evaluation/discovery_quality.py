"""How good discoveries are, where truth is known: for people to read, never for training."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from fewlabels.contracts import Pairs

Values = dict[str, float]


def of_classes(labels: np.ndarray, truth: np.ndarray) -> Values:
    """``wrong``: the share of labels (M,) that are not the true class; truth -1 is unknown."""
    known = truth >= 0
    return {"wrong": float((labels != truth)[known].mean())} if known.any() else {}


def of_clusters(labels: np.ndarray, truth: np.ndarray, before: np.ndarray) -> Values:
    """Measures of cluster numbers (M,), which mean nothing by themselves.

    Args:
        before: (M,) cluster numbers of the discovery before, -1 = none.

    Returns:
        ``purity``: the share of samples that belong to the most frequent true class of their
        cluster; ``nmi``: normalised mutual information with the true classes; ``churn``: the share
        that changed cluster, after an optimal matching of the numbers of both clusterings.
    """
    values: Values = {}
    known = truth >= 0
    if known.any():
        values["purity"] = float(
            _count_pairs(labels[known], truth[known]).max(1).sum() / known.sum()
        )
        from sklearn.metrics import normalized_mutual_info_score  # takes seconds to import

        values["nmi"] = float(normalized_mutual_info_score(truth[known], labels[known]))
    again = before >= 0
    if again.any():
        table = _count_pairs(before[again], labels[again])
        stayed = table[linear_sum_assignment(table, maximize=True)].sum()
        values["churn"] = float(1 - stayed / again.sum())
    return values


def of_pairs(pairs: Pairs, labels: np.ndarray, truth: np.ndarray) -> Values:
    """Measures of matched pairs, compared with all pairs of images that share a label.

    Args:
        labels, truth: (N,) labels and true classes of the images to which the pairs refer.

    Returns:
        ``pairs``: how many; ``coverage``: the share of images that have a partner; ``pairs_right``:
        the share of pairs of one true class; ``cluster_pairs_right``: the same share among all
        pairs of images with one label.
    """
    values = {"pairs": float(len(pairs.left))}
    partnered = np.union1d(pairs.left, pairs.right)
    values["coverage"] = len(partnered) / max(1, len(labels))
    known = (truth[pairs.left] >= 0) & (truth[pairs.right] >= 0)
    if known.any():
        same = truth[pairs.left] == truth[pairs.right]
        values["pairs_right"] = float(same[known].mean())
    both = (labels >= 0) & (truth >= 0)
    if both.any():
        table = _count_pairs(labels[both], truth[both])
        each = table.sum(1)
        pairs_within = (each * (each - 1)).sum()
        if pairs_within:
            values["cluster_pairs_right"] = float((table * (table - 1)).sum() / pairs_within)
    return values


def _count_pairs(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Contingency table: how often each number in ``rows`` meets each one in ``columns``."""
    counts = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts

"""Classifiers in closed form: linear rules that are computed from labelled features, not trained.

N is the number of samples, D the width of a feature, C the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NEVER = 1e4
"""By how much the bias of a class without samples is below the smallest other one."""


class LinearRule(NamedTuple):
    """Scores of features (N, D): ``features @ weight.T + bias``; the largest is the class."""

    weight: np.ndarray  # (C, D) float64
    bias: np.ndarray  # (C,)

    def score_features(self, features: np.ndarray) -> np.ndarray:
        """Scores (N, C) float64."""
        return features.astype(np.float64) @ self.weight.T + self.bias

    def scale_scores(self, factor: float) -> LinearRule:
        """The rule with all its scores multiplied."""
        return LinearRule(self.weight * factor, self.bias * factor)


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], LinearRule]
"""``fit(features, labels, weights)`` of samples that all have labels."""


def fit_lda(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    shrinkage: float = 0.5,
    weights: np.ndarray | None = None,
    priors: np.ndarray | None = None,
) -> LinearRule:
    """Linear discriminant analysis with a shrunk covariance within classes.

    The covariance S of all samples around the means of their classes becomes
    ``(1 - shrinkage) S + shrinkage tr(S) / D I``; scores are log posteriors up to what is the same
    for all classes, ``mean' S^-1 x - mean' S^-1 mean / 2 + log prior``. Where each class has one
    sample alone S is zero, and the nearest mean decides.

    Args:
        features: (N, D).
        labels: (N,) below ``classes``; a class without a sample is never answered.
        weights: (N,) of the samples; None: 1 for each.
        priors: (C,) of the classes; None: all the same.

    Source: Friedman, "Regularized discriminant analysis", JASA 1989.
    """
    features = features.astype(np.float64)
    weights = np.ones(len(features)) if weights is None else weights.astype(np.float64)
    means, present = average_by_class(features, labels, classes, weights)
    rows = (features - means[labels]) * np.sqrt(weights / weights.sum())[:, None]  # S = rows' rows
    trace = float((rows**2).sum())
    width = features.shape[1]
    ridge = shrinkage * trace / width
    if trace <= 0 or ridge <= 0:
        ridge = ridge or (1e-9 * trace / width if trace > 0 else 1.0)
    own = np.sqrt(1 - shrinkage) * rows
    if len(own) < width:  # (ridge I + own' own)^-1 by a system of N equations
        small = own @ own.T
        small[np.diag_indices_from(small)] += ridge
        weight = (means - np.linalg.solve(small, own @ means.T).T @ own) / ridge
    else:
        large = own.T @ own
        large[np.diag_indices_from(large)] += ridge
        weight = np.linalg.solve(large, means.T).T
    bias = -0.5 * (weight * means).sum(1)
    if priors is not None:
        bias = bias + np.log(np.maximum(priors, 1e-300))
    return _never_answer(LinearRule(weight, bias), present)


def fit_nearest_mean(
    features: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> LinearRule:
    """The class whose mean feature is nearest: scores are minus half the squared distance, up to
    what is the same for all classes.

    Args: as for :func:`fit_lda`.
    """
    features = features.astype(np.float64)
    weights = np.ones(len(features)) if weights is None else weights.astype(np.float64)
    means, present = average_by_class(features, labels, classes, weights)
    return _never_answer(LinearRule(means, -0.5 * (means**2).sum(1)), present)


def average_by_class(
    features: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means (C, D), zeros for a class without samples, and which have some (C,) bool."""
    mass = np.bincount(labels, weights, minlength=classes)
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, features * weights[:, None])
    return sums / np.where(mass > 0, mass, 1)[:, None], mass > 0


def _never_answer(rule: LinearRule, present: np.ndarray) -> LinearRule:
    if present.all():
        return rule
    lowest = rule.bias[present].min() - NEVER * max(1.0, float(np.abs(rule.weight).max()))
    return LinearRule(
        np.where(present[:, None], rule.weight, 0), np.where(present, rule.bias, lowest)
    )


def score_left_out(
    fit: Fit, features: np.ndarray, labels: np.ndarray, weights: np.ndarray, judged: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of samples by rules that were fitted without them.

    Each sample of a class is left out in another fold, of ten at most; with ten samples or fewer in
    each class no two of one class are left out together.

    Args:
        labels, weights: (N,) of all samples.
        judged: (M,) the positions of those to be scored; others are in every fit.

    Returns:
        The positions (K,) of the judged whose class stays without them, and their scores (K, C).
    """
    counts = np.bincount(labels)
    judged = judged[counts[labels[judged]] > 1]
    order = np.zeros(len(labels), np.int64)
    for label in np.unique(labels[judged]):
        own = judged[labels[judged] == label]
        order[own] = np.arange(len(own))
    folds = order[judged] % min(10, max(2, int(order[judged].max(initial=0)) + 1))
    scores: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for fold in np.unique(folds):
        out = judged[folds == fold]
        left = np.setdiff1d(np.arange(len(labels)), out)
        kept = np.isin(labels[out], labels[left])
        rule = fit(features[left], labels[left], weights[left])
        places.append(out[kept])
        scores.append(rule.score_features(features[out[kept]]))
    if not places:
        return judged[:0], np.empty((0, int(labels.max(initial=0)) + 1))
    return np.concatenate(places), np.concatenate(scores)


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The factor of scores (N, C) at which the softmax gives labels (N,) the largest likelihood.

    It is searched between 1e-6 and 1e6, by golden sections of its logarithm; 1 without samples.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    if not len(labels):
        return 1.0
    scores = scores - scores.max(1, keepdims=True)

    def measure_loss(power: float) -> float:
        scaled = scores * np.exp(power)
        own = scaled[np.arange(len(labels)), labels]
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - own))

    low, high = np.log(1e-6), np.log(1e6)
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-3:
        one, two = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, two) if measure_loss(one) <= measure_loss(two) else (one, high)
    return float(np.exp((low + high) / 2))

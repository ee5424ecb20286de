"""Classifiers in closed form: linear rules that are computed from labelled features, not trained.

N is the number of samples, D the width of a feature, C the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve

NEVER = 1e4
"""By how much the bias of a class without samples is below the smallest other one."""
ROUNDING = 1e-10
"""Share of a sum below which what is left of it is an error of rounding."""
LEAST_RIDGE = 1e-14
"""Share of the mean square of features that is more than rounding leaves of a flat direction."""
CHUNK = 4096
"""Samples that are in double precision at once."""


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

    def restore_width(self, basis: np.ndarray | None) -> LinearRule:
        """The rule of features, from that of their coordinates (:func:`span_features`)."""
        return self if basis is None else LinearRule(self.weight @ basis.T, self.bias)


def span_features(features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates (N, N) of fewer features (N, D) than numbers, and the basis (D, N) of these.

    A closed form needs no other direction, and its equations become small. With N >= D: the
    features themselves, and None.
    """
    if len(features) >= features.shape[1]:
        return features, None
    basis, coordinates = np.linalg.qr(features.T.astype(np.float64))
    return coordinates.T, basis


class Moments(NamedTuple):
    """What a rule in closed form has to know of labelled samples; those of two sets add up."""

    second: np.ndarray  # (D, D) sum of w x x'
    sums: np.ndarray  # (C, D) of w x, by class
    mass: np.ndarray  # (C,) of w, by class
    width: int  # numbers of a feature: D, or more where these are its coordinates

    def subtract_samples(self, other: Moments) -> Moments:
        """Those without the samples of another set, which are among them."""
        second, sums = self.second - other.second, self.sums - other.sums
        return Moments(second, sums, self.mass - other.mass, self.width)

    def average_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Means (C, D), zeros for a class without samples, and which have some (C,) bool."""
        present = self.mass > ROUNDING * self.mass.sum()
        means = self.sums / np.where(present, self.mass, 1)[:, None]
        return np.where(present[:, None], means, 0), present


def measure_moments(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    weights: np.ndarray | None = None,
    width: int | None = None,
) -> Moments:
    """The moments of samples.

    Args:
        features: (N, D).
        labels: (N,) below ``classes``.
        weights: (N,) of the samples; None: 1 for each.
        width: numbers of a feature, where ``features`` are coordinates; None: D.
    """
    weights = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    size = features.shape[1]
    second, sums, total = np.zeros((size, size)), np.zeros((classes, size)), np.zeros(classes)
    for start in range(0, len(labels), CHUNK):
        own, mass = labels[start : start + CHUNK], weights[start : start + CHUNK]
        roots = features[start : start + CHUNK].astype(np.float64) * np.sqrt(mass)[:, None]
        shares = np.zeros((len(own), classes))
        shares[np.arange(len(own)), own] = np.sqrt(mass)
        second += roots.T @ roots
        sums += shares.T @ roots
        total += np.bincount(own, mass, minlength=classes)
    return Moments(second, sums, total, width or size)


Fit = Callable[[Moments], LinearRule]
"""A rule of samples that all have labels."""


def fit_lda(
    moments: Moments, shrinkage: float = 0.5, priors: np.ndarray | None = None
) -> LinearRule:
    """Linear discriminant analysis with a shrunk covariance within classes.

    The covariance S of all samples around the means of their classes becomes
    ``(1 - shrinkage) S + shrinkage tr(S) / D I``; scores are log posteriors up to what is the same
    for all classes, ``mean' S^-1 x - mean' S^-1 mean / 2 + log prior``. Where each class has one
    sample alone S is zero, and the nearest mean decides. A class without samples is never answered.

    Args:
        priors: (C,) of the classes; None: all the same.

    Source: Friedman, "Regularized discriminant analysis", JASA 1989.
    """
    means, present = moments.average_classes()
    within = moments.second - means.T @ moments.sums
    within /= moments.mass.sum()
    trace, size = float(np.trace(within)), len(within)
    whole = float(np.trace(moments.second)) / moments.mass.sum()
    if trace <= ROUNDING * whole:
        shrunk = np.eye(size)
    else:
        shrunk = (1 - shrinkage) * within
        ridge = max(shrinkage * trace / moments.width, LEAST_RIDGE * whole)
        shrunk[np.diag_indices(size)] += ridge
    weight = solve(shrunk, means.T, assume_a="pos", overwrite_a=True).T
    bias = -0.5 * (weight * means).sum(1)
    if priors is not None:
        bias = bias + np.log(np.maximum(priors, 1e-300))
    return _never_answer(LinearRule(weight, bias), present)


def fit_nearest_mean(moments: Moments) -> LinearRule:
    """The class whose mean feature is nearest: scores are minus half the squared distance, up to
    what is the same for all classes."""
    means, present = moments.average_classes()
    return _never_answer(LinearRule(means, -0.5 * (means**2).sum(1)), present)


def _never_answer(rule: LinearRule, present: np.ndarray) -> LinearRule:
    if present.all():
        return rule
    lowest = rule.bias[present].min() - NEVER * max(1.0, float(np.abs(rule.weight).max()))
    return LinearRule(
        np.where(present[:, None], rule.weight, 0), np.where(present, rule.bias, lowest)
    )


def score_left_out(
    fit: Fit,
    moments: Moments,
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of samples by rules that were fitted without them.

    Each sample of a class is left out in another fold, of ten at most; with ten samples or fewer in
    each class no two of one class are left out together.

    Args:
        moments: of all samples, also of those that are in every fit.
        features, labels, weights: (N, D), (N,), (N,) of those to be scored.

    Returns:
        The positions (K,) of the samples whose class stays without them, and their scores (K, C).
    """
    classes = len(moments.mass)
    weights = np.ones(len(labels)) if weights is None else weights
    order = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        order[own] = np.arange(len(own))
    folds = order % min(10, max(2, int(order.max(initial=0)) + 1))
    scores: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for fold in np.unique(folds):
        out = np.flatnonzero(folds == fold)
        left = moments.subtract_samples(
            measure_moments(features[out], labels[out], classes, weights[out])
        )
        _, present = left.average_classes()
        out = out[present[labels[out]]]
        if len(out):
            places.append(out)
            scores.append(fit(left).score_features(features[out]))
    if not places:
        return np.zeros(0, np.int64), np.empty((0, classes))
    return np.concatenate(places), np.concatenate(scores)


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The factor of scores (N, C) at which the softmax gives labels (N,) the largest likelihood.

    It is searched where the two largest scores become 1e-6 to 1e6 apart on average, by golden
    sections of its logarithm; 1 without samples.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    if not len(labels):
        return 1.0
    scores = scores - scores.max(1, keepdims=True)
    gap = float(-np.partition(scores, -2, axis=1)[:, -2].mean()) if scores.shape[1] > 1 else 0.0
    unit = 1 / gap if gap > 0 else 1.0
    scores = scores * unit

    def measure_loss(power: float) -> float:
        scaled = scores * np.exp(power)
        own = scaled[np.arange(len(labels)), labels]
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - own))

    low, high = np.log(1e-6), np.log(1e6)
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-3:
        one, two = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, two) if measure_loss(one) <= measure_loss(two) else (one, high)
    return unit * float(np.exp((low + high) / 2))

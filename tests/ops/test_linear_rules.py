"""Rules in closed form: by plain equations, by scikit-learn's, and where classes lack samples."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fewlabels.ops.linear_rules import (
    fit_lda,
    fit_nearest_mean,
    fit_temperature,
    measure_moments,
    score_left_out,
    span_features,
)


def make_data(n=60, width=10, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return rng.normal(size=(n, width)) + 2 * np.eye(classes, width)[labels], labels


def fit(rule, features, labels, classes, *options, weights=None, **more):
    return rule(measure_moments(features, labels, classes, weights), *options, **more)


def test_three_samples_by_hand():
    """Class 0: (0, 0), (2, 0), mean (1, 0); class 1: (0, 2). S = [[2/3, 0], [0, 0]], tr S / D = 1/3;
    shrunk by half: [[1/3 + 1/6, 0], [0, 1/6]], its inverse [[2, 0], [0, 6]]."""
    rule = fit(fit_lda, np.array([[0, 0], [2, 0], [0, 2]]), np.array([0, 0, 1]), 2, 0.5)
    assert np.allclose(rule.weight, [[2, 0], [0, 12]])
    assert np.allclose(rule.bias, [-1, -12])


@pytest.mark.parametrize("width", [10, 100])  # fewer and more numbers than samples
@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 0.9])
def test_scores_are_scikit_learns_up_to_a_constant(width, shrinkage):
    x, y = make_data(width=width)
    other = LinearDiscriminantAnalysis("lsqr", shrinkage=shrinkage, priors=[1 / 3] * 3).fit(x, y)
    ours, theirs = fit(fit_lda, x, y, 3, shrinkage).score_features(x), other.decision_function(x)
    centred = [scores - scores.mean(1, keepdims=True) for scores in (ours, theirs)]
    assert np.allclose(*centred, atol=1e-8)


def test_a_weight_of_two_is_the_sample_twice():
    x, y = make_data()
    weights = np.where(np.arange(len(x)) < 20, 2.0, 1.0)
    twice = fit(fit_lda, np.concatenate([x, x[:20]]), np.concatenate([y, y[:20]]), 3)
    assert np.allclose(fit(fit_lda, x, y, 3, weights=weights).weight, twice.weight)


@pytest.mark.parametrize("rule", [fit_lda, fit_nearest_mean])
def test_a_sample_of_weight_0_is_as_if_it_were_not_there(rule):
    x, y = make_data()
    weights = np.where(np.arange(len(x)) < 50, 1.0, 0.0)
    light, without = fit(rule, x, y, 3, weights=weights), fit(rule, x[:50], y[:50], 3)
    assert np.allclose(light.weight, without.weight)
    assert np.allclose(light.bias, without.bias)


def test_priors_move_the_scores_by_their_logarithm():
    x, y = make_data()
    priors = np.array([0.5, 0.3, 0.2])
    moved = fit(fit_lda, x, y, 3, priors=priors).bias - fit(fit_lda, x, y, 3).bias
    assert np.allclose(moved, np.log(priors))


@pytest.mark.parametrize("rule", [fit_lda, fit_nearest_mean])
def test_a_class_without_samples_is_never_answered(rule):
    x, y = make_data()
    found = fit(rule, x[y != 1], y[y != 1], 3)
    far = np.concatenate([x, 1e3 * x])
    assert np.isfinite(found.score_features(far)).all()
    assert 1 not in found.score_features(x).argmax(1)


@pytest.mark.parametrize("rule", [fit_lda, fit_nearest_mean])
def test_one_label_a_class_is_the_nearest_of_them(rule):
    x, y = make_data(n=3)
    tests, _ = make_data(n=50, seed=1)
    nearest = np.linalg.norm(tests[:, None] - x[None], axis=2).argmin(1)
    assert fit(rule, x, y, 3).score_features(tests).argmax(1).tolist() == y[nearest].tolist()


def test_left_out_scores_are_those_of_fits_without_the_sample():
    x, y = make_data(n=12)
    asked = np.array([0, 4, 9])
    moments = measure_moments(x, y, 4)
    judged, scores = score_left_out(fit_lda, moments, x[asked], y[asked])
    assert sorted(judged.tolist()) == [0, 1, 2]
    # Samples 0 and 9 are of one class, so in two folds; 4 is left out with the first of them.
    for place, score in zip(asked[judged], scores, strict=True):
        out = [0, 4] if place in (0, 4) else [9]
        left = np.setdiff1d(np.arange(12), out)
        assert np.allclose(score, fit(fit_lda, x[left], y[left], 4).score_features(x[[place]])[0])
    lone = np.concatenate([y[:-1], [3]])  # a class of one cannot be judged
    judged, _ = score_left_out(fit_lda, measure_moments(x, lone, 4), x, lone)
    assert sorted(judged.tolist()) == list(range(11))


@pytest.mark.parametrize("width", [10, 100])
@pytest.mark.parametrize("rule", [fit_lda, fit_nearest_mean])
def test_a_rule_of_coordinates_is_that_of_the_features(rule, width):
    x, y = make_data(width=width)
    places, basis = span_features(x)
    assert places.shape == (60, min(60, width))
    lifted = rule(measure_moments(places, y, 3, width=width)).restore_width(basis)
    whole = fit(rule, x, y, 3)
    asked = np.random.default_rng(1).normal(size=(20, width))  # some outside what x spans
    assert np.allclose(lifted.score_features(asked), whole.score_features(asked))


@pytest.mark.parametrize("offset", [0, 1e4])
def test_features_that_are_all_there_twice_need_no_shrinkage(offset):
    x, y = make_data(n=600, width=50)
    twice = np.concatenate([x, x], axis=1) + offset
    scores = fit(fit_lda, twice, y, 3, 1e-12).score_features(twice)
    assert (
        scores.argmax(1) == fit(fit_lda, x, y, 3, 1e-6).score_features(x).argmax(1)
    ).mean() > 0.9


def test_moments_do_not_depend_on_how_samples_are_chunked(monkeypatch):
    x, y = make_data()
    weights = np.random.default_rng(0).random(len(x))
    whole = measure_moments(x, y, 3, weights)
    monkeypatch.setattr("fewlabels.ops.linear_rules.CHUNK", 7)
    for mine, theirs in zip(measure_moments(x, y, 3, weights)[:3], whole[:3], strict=True):
        assert np.allclose(mine, theirs)
    assert np.allclose(whole.second, (x * weights[:, None]).T @ x)


def test_the_temperature_is_that_of_the_largest_likelihood():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 3)) * 50
    p = np.exp(scores / 25 - (scores / 25).max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    labels = (rng.random(4000)[:, None] > p.cumsum(1)).sum(1)
    assert fit_temperature(scores, labels) == pytest.approx(1 / 25, rel=0.1)
    assert fit_temperature(1e9 * scores, labels) == pytest.approx(1 / 25e9, rel=0.1)
    assert fit_temperature(scores[:0], labels[:0]) == 1

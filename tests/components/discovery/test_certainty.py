"""Weights of labels by how certain they are: entropy by scipy, distances one after the other."""

import numpy as np
import pytest
from scipy.stats import entropy
from test_confident import ask, plainly, pool

from fewlabels.components.discovery.by_prediction import ByPrediction
from fewlabels.components.discovery.confident import Confident
from fewlabels.errors import DataError
from fewlabels.ops.certainty import measure_certainty


def test_certainty_by_hand():
    shares = np.array([[1, 0, 0, 0], [2, 2, 2, 2], [3, 3, 0, 0], [0, 0, 0, 0]])
    # Two classes of four alike: log 2 of log 4.
    assert measure_certainty(shares).tolist() == pytest.approx([1, 0, 0.5, 0])
    assert measure_certainty(np.ones((3, 1))).tolist() == [1, 1, 1]
    assert measure_certainty(np.ones((0, 4))).tolist() == []


@pytest.mark.parametrize("precision", ["double", "single"])
def test_by_prediction_weighs_by_the_entropy_of_all_probabilities(precision):
    given = pool()
    assert ask(ByPrediction(), given).weights is None
    found = ask(ByPrediction(weigh=True, precision=precision), given)
    plain = ask(ByPrediction(precision=precision), given)
    assert found.indices.tolist() == plain.indices.tolist()
    expected = 1 - entropy(given.probabilities[found.indices], base=4, axis=1)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-4, atol=1e-6)
    assert found.weights.dtype == np.float32


@pytest.mark.parametrize("score", ["distance", "ratio"])
def test_confident_weighs_by_the_two_nearest_centres(score):
    given = pool()
    assert ask(Confident(), given).weights is None
    found = ask(Confident(normalise=False, score=score, weigh=True), given)
    far = plainly(given.features, given.labels)
    expected = []
    for i in found.indices:
        nearest, second, *_ = sorted(far[i][1].values())
        expected.append(1 - nearest / second)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-4, atol=1e-6)
    assert found.weights.dtype == np.float32
    assert found.labels.tolist() == [far[i][0] for i in found.indices]


@pytest.mark.parametrize("fusion", ["distance", "cascade", "rank"])
def test_confident_of_three_models_weighs_by_the_distances_that_gave_the_label(fusion):
    given = pool(history=2)
    found = ask(Confident(normalise=False, fusion=fusion, weigh=True), given)
    sets = [given.features, *given.history]
    if fusion == "rank":
        sets = sets[:1]
    elif fusion == "cascade":
        sets = [np.concatenate(sets, axis=1)]
    each = [plainly(features, given.labels) for features in sets]
    for i, label, weight in zip(found.indices, found.labels, found.weights, strict=True):
        far = {n: np.mean([one[i][1][n] for one in each]) for n in each[0][i][1]}
        nearest, second, *_ = sorted(far.values())
        assert far[label] == nearest
        assert weight == pytest.approx(1 - nearest / second, rel=1e-4, abs=1e-6)


def test_one_labelled_class_has_no_second_centre_to_weigh_by():
    with pytest.raises(DataError, match="two classes for a ratio.*set score: distance and weigh"):
        ask(Confident(weigh=True), pool(classes=1))

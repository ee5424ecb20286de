"""by_prediction for a classifier in closed form: equal mass, margins, and labels decided anew."""

import numpy as np

from fewlabels.components.discovery.by_prediction import ByPrediction
from fewlabels.contracts import Pool, check_discovered


def make_pool(shares, labels, given):
    shares, labels = np.array(shares, float), np.array(labels)
    rows = np.arange(len(labels))
    features = np.zeros((len(labels), 2), np.float32)
    return Pool(rows, features, labels, np.array(given, bool), shares.shape[1], shares)


SHARES = [[1, 0], [0, 1], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
GIVEN = [True, True, False, False, False, False]
RNG = np.random.default_rng(0)


def test_a_class_that_takes_all_gives_its_least_sure_samples_away():
    pool = make_pool(SHARES, [0, 1, -1, -1, -1, -1], GIVEN)
    assert ByPrediction().discover(pool, 4, RNG).labels.tolist() == [0, 0, 0, 0]
    assert ByPrediction(mass="equal").discover(pool, 4, RNG).labels.tolist() == [0, 0, 1, 1]


def test_a_class_without_a_label_gets_no_mass():
    shares = np.hstack([np.array(SHARES) * 0.999, np.full((6, 1), 0.001)])
    pool = make_pool(shares, [0, 1, -1, -1, -1, -1], GIVEN)
    found = ByPrediction(mass="equal", weigh=True).discover(pool, 4, RNG)
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert np.isfinite(found.weights).all()


def test_margins_tell_apart_what_probabilities_do_not():
    shares = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0.5, 0.3, 0.2], [0.6, 0.35, 0.05]])
    pool = make_pool(shares, [0, 1, -1, -1, -1], [True, True, False, False, False])
    found = ByPrediction(score="margin").discover(pool, 3, RNG)
    assert np.allclose(found.scores, [0, np.log(5 / 3), np.log(12 / 7)])


def test_earlier_discoveries_are_decided_anew_and_given_labels_are_not():
    pool = make_pool(SHARES, [0, 1, 1, 1, -1, -1], GIVEN)  # two were discovered, wrongly
    component = ByPrediction(relabel=True)
    found = component.discover(pool, 1, RNG)
    assert check_discovered(found, pool, 1, None) == ""
    assert (found.merge, found.indices.tolist(), found.labels.tolist()) == (
        "replace",
        [2, 3, 4],
        [0, 0, 0],
    )
    kept = ByPrediction().discover(pool, 1, RNG)
    assert (kept.merge, kept.indices.tolist()) == ("add", [4])

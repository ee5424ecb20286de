"""Purity, churn and the rest by hand."""

import itertools

import numpy as np
import pytest

from fewlabels.contracts import Pairs
from fewlabels.evaluation.discovery_quality import of_classes, of_clusters, of_pairs

NONE = np.full(6, -1)


def test_wrong_counts_known_truth_alone():
    labels, truth = np.array([0, 1, 2, 2]), np.array([0, 0, 2, -1])
    assert of_classes(labels, truth) == {"wrong": pytest.approx(1 / 3)}
    assert of_classes(labels, np.full(4, -1)) == {}
    nothing = np.empty(0, np.int64)
    assert of_classes(nothing, nothing) == {}
    assert of_clusters(nothing, nothing, nothing) == {}


def test_purity_is_the_share_of_the_most_frequent_class():
    labels, truth = np.array([7, 7, 7, 2, 2, 0]), np.array([1, 1, 0, 2, -1, 0])
    values = of_clusters(labels, truth, NONE)
    assert values["purity"] == pytest.approx(4 / 5)
    assert "churn" not in values
    right = of_clusters(np.array([3, 3, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 2, 2]), NONE)
    assert right == {"purity": 1, "nmi": pytest.approx(1)}
    one = of_clusters(np.zeros(6, int), np.array([0, 0, 1, 1, 2, 2]), NONE)
    assert one == {"purity": pytest.approx(1 / 3), "nmi": pytest.approx(0)}


def test_churn_is_blind_to_other_numbers_and_counts_what_moved():
    rng = np.random.default_rng(0)
    before = rng.integers(0, 4, 60)
    renumbered = np.array([2, 0, 3, 1])[before]
    truth = np.full(60, -1)
    assert of_clusters(renumbered, truth, before)["churn"] == pytest.approx(0)
    moved = renumbered.copy()
    moved[:9] = (moved[:9] + 1) % 4
    assert of_clusters(moved, truth, before)["churn"] == pytest.approx(9 / 60)
    other = rng.integers(0, 4, 60)
    best = max(
        np.mean(np.array(order)[before] == other) for order in itertools.permutations(range(4))
    )
    assert of_clusters(other, truth, before)["churn"] == pytest.approx(1 - best)
    before[:30] = -1
    assert of_clusters(renumbered, truth, before)["churn"] == pytest.approx(0)


def test_pairs_are_compared_with_all_pairs_of_a_label():
    labels = np.array([0, 0, 0, 1, 1, -1])
    truth = np.array([5, 5, 6, 6, -1, 6])
    none = np.empty((4, 4))
    pairs = Pairs(
        np.array([0, 1, 2, 3]), np.array([1, 2, 0, 4]), none, none, np.empty((4, 2, 3)), (), NONE
    )
    values = of_pairs(pairs, labels, truth)
    # Of the pairs with known truth one of three is right; so is one of the three of label 0.
    assert values == {
        "pairs": 4,
        "coverage": pytest.approx(5 / 6),  # image 4 is a partner, though on no left side
        "pairs_right": pytest.approx(1 / 3),
        "cluster_pairs_right": pytest.approx(1 / 3),
    }
    unknown = of_pairs(pairs, labels, NONE)
    assert unknown == {"pairs": 4, "coverage": pytest.approx(5 / 6)}

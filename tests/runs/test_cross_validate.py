"""Folds of the labelled images, and which images a person should label next."""

import numpy as np
import pytest

from fewlabels.runs.classify_tables import choose_next
from fewlabels.runs.cross_validate import FOLDS, calibrate_probabilities, draw_folds


def test_each_labelled_image_is_left_out_once_and_of_few_no_two_of_a_class_together():
    labels = np.repeat([0, 1, 2, 3, -1], [4, 2, 10, 1, 30])
    folds = draw_folds(np.random.default_rng(0).permutation(labels), 0)
    labels = np.random.default_rng(0).permutation(labels)
    assert len(folds) == 10
    out = np.concatenate(folds)
    assert sorted(out) == np.flatnonzero((labels >= 0) & (labels != 3)).tolist()
    assert all(len(set(labels[fold])) == len(fold) for fold in folds)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


def test_of_many_labels_a_tenth_of_each_class_is_left_out_at_a_time():
    labels = np.repeat([0, 1], [50, 30])
    folds = draw_folds(labels, 0)
    assert len(folds) == FOLDS
    assert all(np.bincount(labels[fold]).tolist() == [5, 3] for fold in folds)
    assert not np.array_equal(folds[0], draw_folds(labels, 1)[0])


def test_where_each_class_has_one_label_nothing_is_left_out():
    assert draw_folds(np.array([0, -1, 1, 2]), 0) == []
    assert len(draw_folds(np.array([0, 0, 1]), 0)) == 2


def test_what_to_label_next_is_least_sure_and_spread_over_classes():
    sure = np.array([0.9, 0.5, 0.51, 0.52, 0.8, 0.7, 0.4])
    guess = np.array([0, 1, 1, 1, 2, 0, 0])
    probabilities = np.full((7, 3), 0.01)
    probabilities[np.arange(7), guess] = sure
    labels = np.array([-1, -1, -1, -1, -1, -1, 0])  # the last is labelled
    assert choose_next(probabilities, labels, 3).tolist() == [1, 5, 4]  # one of each class
    assert choose_next(probabilities, labels, 5).tolist() == [1, 2, 5, 4, 0]
    assert len(choose_next(probabilities, labels)) == 6


def test_a_model_that_is_too_sure_is_told_by_images_that_were_left_out():
    """Answers that say .99 and are right 4 times of 5 become .8, and their order stays."""
    sure = np.array([[0.99, 0.01]] * 500)
    truth = np.where(np.arange(500) % 5 == 0, 1, 0)
    found = calibrate_probabilities(np.array([[0.99, 0.01], [0.01, 0.99], [1.0, 0.0]]), sure, truth)
    assert found[:2] == pytest.approx(np.array([[0.8, 0.2], [0.2, 0.8]]), abs=1e-3)
    assert found[2, 0] > 0.99

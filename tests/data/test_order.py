import numpy as np
import pytest

from fewlabels.data.order import class_balanced, draw_shuffled
from fewlabels.errors import DataError
from fewlabels.ops.seeds import make_generator


def test_batches_hold_the_same_number_of_images_of_each_class():
    labels = np.repeat(np.arange(20), 15)
    order = class_balanced(labels, 40, 5, 30, make_generator(0, "order"))
    assert order.shape == (30, 40)
    for batch in order:
        classes, counts = np.unique(labels[batch], return_counts=True)
        assert len(classes) == 8
        assert set(counts) == {5}
        assert len(np.unique(batch)) == 40


def test_classes_and_images_come_in_turn_so_none_is_forgotten():
    labels = np.repeat(np.arange(10), 10)
    order = class_balanced(labels, 10, 5, 10, make_generator(1, "order"))
    assert np.bincount(order.ravel(), minlength=100).tolist() == [1] * 100


def test_empty_tiny_and_unlabelled_classes_do_not_crash():
    labels = np.array([0] * 50 + [3] + [7, 7] + [-1] * 5)  # 1, 2, 4, 5, 6 are empty
    order = class_balanced(labels, 20, 5, 8, make_generator(2, "order"))
    assert (labels[order] >= 0).all()
    assert all(len(set(labels[batch])) == 3 for batch in order)
    assert (
        class_balanced(np.array([4]), 10, 5, 2, make_generator(0, "x")).tolist() == [[0] * 10] * 2
    )


def test_order_is_a_pure_function_of_its_seed():
    labels = np.random.default_rng(0).integers(0, 9, 200)
    one, two, other = (
        class_balanced(labels, 30, 5, 7, make_generator(0, "order", e)) for e in (3, 3, 4)
    )
    assert (one == two).all()
    assert (one != other).any()


def test_plain_order_sees_every_sample_once_a_pass():
    order = draw_shuffled(np.arange(5, 25), 10, 4, make_generator(0, "order"))
    assert sorted(order[:2].ravel()) == list(range(5, 25))
    assert sorted(order[2:].ravel()) == list(range(5, 25))


def test_impossible_orders_are_refused_with_a_sentence():
    with pytest.raises(DataError, match="batch 7 is no multiple of per_class 5"):
        class_balanced(np.zeros(9, int), 7, 5, 1, make_generator(0))
    with pytest.raises(DataError, match="no training image has a label"):
        class_balanced(np.full(9, -1), 10, 5, 1, make_generator(0))
    with pytest.raises(DataError, match="stream is empty"):
        draw_shuffled(np.array([], int), 10, 1, make_generator(0))

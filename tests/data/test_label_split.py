import csv

import numpy as np
import pytest

from fewlabels.data.label_split import labelled_split, write_labelled
from fewlabels.errors import DataError

TRUTH = np.repeat([0, 1, 2, -1], [50, 30, 20, 5])
ROWS = np.arange(1000, 1105)


def draw(count, seed=0, share="balanced", validation=0, truth=TRUTH):
    return labelled_split(truth, ROWS, count, seed, share, validation)


def test_the_same_seed_gives_the_same_images_everywhere():
    assert draw(9).labelled.tolist() == [20, 23, 44, 52, 56, 75, 81, 83, 92]
    assert draw(9, seed=1).labelled.tolist() != draw(9).labelled.tolist()
    mixed = np.random.default_rng(0).permutation(len(TRUTH))  # the order of the rows means nothing
    again = labelled_split(TRUTH[mixed], ROWS[mixed], 9, 0, "balanced")
    assert sorted(mixed[again.labelled]) == draw(9).labelled.tolist()


def test_balanced_is_equal_and_proportional_follows_the_classes():
    assert np.bincount(TRUTH[draw(30).labelled]).tolist() == [10, 10, 10]
    assert np.bincount(TRUTH[draw(23, share="proportional").labelled]).tolist() == [11, 7, 5]


def test_larger_splits_hold_smaller_ones_and_validation_moves_nothing():
    small, large = set(draw(9).labelled), set(draw(30).labelled)
    assert small < large
    both = draw(30, validation=15)
    assert set(both.labelled) == large
    assert not set(both.validation) & large
    assert np.bincount(TRUTH[both.validation]).tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"count": 10}, "10 cannot be shared equally by 3 classes"),
        (
            {"count": 60, "validation": 3},
            "class 2 has 20 training images, too few for 20 labels and 1",
        ),
        ({"count": 2, "share": "proportional"}, "2 is less than one for each of 3 classes"),
        ({"count": 3, "truth": np.full(105, -1)}, "no training image has a known class"),
    ],
)
def test_a_count_that_cannot_be_is_refused(arguments, sentence):
    with pytest.raises(DataError, match=sentence):
        draw(**arguments)


def test_a_class_that_is_too_small_is_named():
    names = ("9", "10", "11")
    with pytest.raises(DataError, match="class '11' has 20 training images, too few for 21 labels"):
        labelled_split(TRUTH, ROWS, 63, 0, "balanced", names=names)


def test_the_file_says_what_was_drawn(tmp_path):
    parts = draw(3, validation=3)._asdict()
    write_labelled(tmp_path / "labelled.csv", parts, TRUTH, ("a", "b", "c"))
    with (tmp_path / "labelled.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["part"] for row in found] == ["labelled"] * 3 + ["validation"] * 3
    assert [int(row["row"]) for row in found[:3]] == parts["labelled"].tolist()
    assert [row["name"] for row in found[:3]] == ["a", "b", "c"]


def test_svhn_is_shared_out_as_its_classes_are():
    sizes = np.array([4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659])
    truth = np.repeat(np.arange(10), sizes)
    drawn = labelled_split(truth, np.arange(len(truth)), 250, 0, "proportional").labelled
    counts, exact = np.bincount(truth[drawn]), 250 * sizes / sizes.sum()
    assert counts.sum() == 250
    assert (np.abs(counts - exact) < 1).all()


def test_a_rare_class_gets_one_label_and_the_number_stays():
    truth = np.repeat([0, 1, 2], [900, 95, 5])
    drawn = labelled_split(truth, np.arange(1000), 10, 0, "proportional").labelled
    assert np.bincount(truth[drawn]).tolist() == [8, 1, 1]


def test_a_number_of_every_class():
    truth = np.repeat([0, 1, 2], [9, 8, 7])
    drawn = labelled_split(truth, np.arange(24), 4, 0, "per_class", validation=2)
    assert np.bincount(truth[drawn.labelled]).tolist() == [4, 4, 4]
    assert np.bincount(truth[drawn.validation]).tolist() == [2, 2, 2]
    with pytest.raises(
        DataError, match="class 2 has 7 training images, too few for 4 labels and 4"
    ):
        labelled_split(truth, np.arange(24), 4, 0, "per_class", validation=4)

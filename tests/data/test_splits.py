import numpy as np
import pytest

from fewlabels.contracts import Records
from fewlabels.data.splits import Selection, split_rows
from fewlabels.errors import DataError


def records(**columns):
    truth = np.repeat(np.arange(5), 4)
    names = tuple("abcde")
    return Records([None] * 20, truth, names, {k: np.array(v) for k, v in columns.items()})


def test_zero_shot_trains_on_the_first_half_of_the_classes():
    split = split_rows(records(), "zero_shot")
    assert split.train.tolist() == list(range(12))
    assert split.query.tolist() == list(range(12, 20))
    assert split.gallery is None


def test_shared_classes_are_refused_under_zero_shot_but_not_under_all():
    train, test = Selection(frozenset({0, 1, 2})), Selection(frozenset({2, 3}))
    with pytest.raises(DataError, match=r"1 classes are in train and in test \(c\)"):
        split_rows(records(), "zero_shot", train, test)
    assert len(split_rows(records(), "all", train, test).query) == 8


def test_unknown_classes_are_not_shared_ones():
    data = records(part=["train"] * 10 + ["test"] * 10)
    data.truth[:] = np.repeat([-1, 0, 1, -1], 5)
    train, test = Selection(where={"part": "train"}), Selection(where={"part": "test"})
    split = split_rows(data, "zero_shot", train, test)
    assert (len(split.train), len(split.test)) == (10, 10)


def test_query_and_gallery_are_taken_from_the_test_images():
    shop = ["a", "b"] * 10
    split = split_rows(
        records(shop=shop),
        "zero_shot",
        query=Selection(where={"shop": "a"}),
        gallery=Selection(where={"shop": ["b"]}),
    )
    assert split.query.tolist() == [12, 14, 16, 18]
    assert split.gallery.tolist() == [13, 15, 17, 19]


def test_official_split_with_query_and_gallery():
    official = ["train"] * 12 + ["query"] * 3 + ["gallery"] * 5
    split = split_rows(records(split=official), "official")
    assert (len(split.train), len(split.query), len(split.gallery)) == (12, 3, 5)


@pytest.mark.parametrize(
    ("kind", "parts", "sentence"),
    [
        ("official", {}, "no official split; set split"),
        ("all", {"train": Selection(where={"shp": "a"})}, r"no column 'shp'; did you mean 'shop'"),
        ("all", {"train": Selection(where={"shop": "z"})}, r"no image has shop = \['z'\]"),
        ("all", {"train": Selection(frozenset({77}))}, "data.train has no image"),
    ],
)
def test_a_selection_that_fits_nothing_says_why(kind, parts, sentence):
    with pytest.raises(DataError, match=sentence):
        split_rows(records(shop=["a", "b"] * 10), kind, **parts)


def test_an_official_query_outside_the_test_images_is_left_out():
    official = ["train"] * 4 + ["query", "gallery"] * 8
    split = split_rows(records(split=official), "official", test=Selection(frozenset({3, 4})))
    assert split.query.tolist() == [12, 14, 16, 18]
    assert split.gallery.tolist() == [13, 15, 17, 19]

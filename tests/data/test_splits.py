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


def test_a_selection_without_test_images_is_refused_where_it_was_asked_for():
    with pytest.raises(DataError, match=r"data\.test has no image; widen its selection"):
        split_rows(records(), "all", test=Selection(frozenset({77})))
    assert len(split_rows(records(split=["train"] * 20), "official").test) == 0


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_a_split_without_a_test_offers_its_validation_images(name):
    data = records(split=["train"] * 12 + [name] * 8)
    sentence = rf"no test .* but {name} images have; .* data\.test: {{where: {{split: {name}}}}}"
    with pytest.raises(DataError, match=sentence):
        split_rows(data, "official")
    split = split_rows(data, "official", test=Selection(where={"split": name}))
    assert split.train.tolist() == list(range(12))
    assert split.test.tolist() == list(range(12, 20))
    hidden = records(split=["train"] * 8 + ["test"] * 4 + [name] * 8)
    hidden.truth[8:12] = -1  # a test whose labels are kept back
    with pytest.raises(DataError, match=sentence):
        split_rows(hidden, "official")
    hidden.truth[:] = -1
    assert len(split_rows(hidden, "official").test) == 4


def test_a_part_that_a_selection_names_replaces_the_official_one():
    data = records(
        split=["train"] * 4 + ["extra"] * 4 + ["query"] * 4 + ["gallery"] * 4 + ["val"] * 4
    )
    more = split_rows(data, "official", train=Selection(where={"split": ["train", "extra"]}))
    assert more.train.tolist() == list(range(8))
    assert more.query.tolist() == [8, 9, 10, 11]
    other = split_rows(data, "official", test=Selection(where={"split": "val"}))
    assert other.train.tolist() == [0, 1, 2, 3]
    assert (other.query.tolist(), other.gallery) == ([16, 17, 18, 19], None)

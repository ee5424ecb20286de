"""Columns of labels, as pandas, shops and annotation tools write them."""

import datetime

import numpy as np
import pytest
from PIL import Image

from fewlabels.data.hf_dataset import from_dataset, number_classes
from fewlabels.data.splits import Selection, split_rows
from fewlabels.errors import DataError

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "classes", "truth"),
    [
        ([0.0, 2.0, NAN, None], ("0", "1", "2"), [0, 2, -1, -1]),  # pandas, of ints with gaps
        ([1, -1, -2, 0], ("0", "1"), [1, -1, -1, 0]),
        ([1.5, 0.5, NAN], ("0.5", "1.5"), [1, 0, -1]),
        (["b", "", " ", None, "a"], ("a", "b"), [1, -1, -1, -1, 0]),
        (["a", "a ", " a", "caf\u00e9", "cafe\u0301"], ("a", "caf\u00e9"), [0, 0, 0, 1, 1]),
        (["10", "9", "nan"], ("9", "10", "nan"), [1, 0, 2]),
        ([111085122871, 7, -1], ("7", "111085122871"), [1, 0, -1]),
        ([111085122871.0, 7.0, NAN], ("7", "111085122871"), [1, 0, -1]),
        ([True, False], ("0", "1"), [1, 0]),
        ([None, NAN], (), [-1, -1]),
    ],
)
def test_a_value_that_says_nothing_is_no_class(values, classes, truth):
    numbers, names = number_classes(values, None)
    assert names == classes
    assert numbers.dtype == np.int64
    assert numbers.tolist() == truth


def test_names_that_a_column_gives_its_numbers_stay_in_their_order():
    numbers, names = number_classes([1, -1, None, 0], ["owl", "cat"])
    assert (numbers.tolist(), names) == ([1, -1, -1, 0], ("owl", "cat"))
    with pytest.raises(DataError, match="'kind' has class 2, and names for 2 classes"):
        number_classes([0, 2], ["owl", "cat"], "kind")


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, datetime.date(2024, 1, 1), b"cat"])
def test_values_that_are_no_label_are_refused_by_their_kind(value):
    sentence = f"'kind' holds values of the kind {type(value).__name__}; name a column"
    with pytest.raises(DataError, match=sentence):
        number_classes([value, None], None, "kind")


def test_a_mistake_on_a_column_with_gaps_names_its_values():
    import datasets

    rows = {
        "image": [Image.new("RGB", (4, 4))] * 3,
        "label": [0.0, NAN, 2.0],
        "part": ["train", None, "test"],
    }
    features = datasets.Features(
        image=datasets.Image(), label=datasets.Value("float64"), part=datasets.Value("string")
    )
    records = from_dataset({"all": datasets.Dataset.from_dict(rows, features)}, keep_split=False)
    assert records.truth.tolist() == [0, -1, 2]
    chosen = split_rows(records, "all", train=Selection(where={"part": "train"}))
    assert chosen.train.tolist() == [0]
    with pytest.raises(DataError, match="no image has part = .* its values are None, test, train"):
        split_rows(records, "all", train=Selection(where={"part": "q"}))

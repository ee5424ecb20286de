"""Checks of sources."""

from __future__ import annotations

import pickle

import numpy as np
from PIL import Image

from fewlabels.contracts import Records
from fewlabels.testing.subject import Checks, Subject

CHECKS = Checks()
SPLITS = ("official", "zero_shot", "all")


@CHECKS.add
def labels_stand_with_their_images(subject: Subject) -> None:
    """An image, a truth, a name and a value of each column for each sample."""
    records = _load_records(subject)
    count = len(records)
    assert count > 0, "it gave no image"
    lengths = {name: len(values) for name, values in records.columns.items()}
    lengths["images"] = len(records.images)
    if len(records.names):
        lengths["names"] = len(records.names)
    wrong = {name: n for name, n in lengths.items() if n != count}
    assert not wrong, f"there are {count} truths, and of others: {wrong}"


@CHECKS.add
def every_truth_is_a_class_or_unknown(subject: Subject) -> None:
    """int64 numbers into ``classes``, -1 where nobody knows; names of classes differ."""
    records = _load_records(subject)
    assert records.truth.dtype == np.int64, f"truth is {records.truth.dtype}, not int64"
    low, high = int(records.truth.min()), int(records.truth.max())
    assert -1 <= low <= high < max(1, len(records.classes)), f"truth goes from {low} to {high}"
    assert len(set(records.classes)) == len(records.classes), "two classes have one name"
    assert all(isinstance(name, str) for name in records.classes), "a class's name is no text"


@CHECKS.add
def images_are_rgb_and_the_same_each_time(subject: Subject) -> None:
    """Decoded on access: the first, the last and one in the middle, twice."""
    images = _load_records(subject).images
    for i in {0, len(images) // 2, len(images) - 1}:
        one, two = images[i], images[i]
        assert isinstance(one, Image.Image), f"image {i} is {type(one).__name__}, not of PIL"
        assert one.mode == "RGB", f"image {i} is {one.mode}, not RGB"
        assert np.array_equal(np.asarray(one), np.asarray(two)), f"image {i} changes"


@CHECKS.add
def two_loads_give_the_same_order(subject: Subject) -> None:
    """A resumed run, and each process of many, loads again: samples are known by their row."""
    one, two = _load_records(subject), _load_records(subject)
    assert np.array_equal(one.truth, two.truth), "truth differs"
    assert list(one.names) == list(two.names), "names differ"
    assert one.classes == two.classes, "classes differ"
    for i in (0, len(one) - 1):
        assert np.array_equal(np.asarray(one.images[i]), np.asarray(two.images[i])), (
            f"image {i} differs"
        )


@CHECKS.add
def its_own_split_can_be_made(subject: Subject) -> None:
    """``default_split`` is a split; an official one has a column that says who trains."""
    source = subject.make_component()
    assert source.default_split in SPLITS, f"default_split is {source.default_split!r}"
    if source.default_split == "official":
        records = source.load()
        assert "split" in records.columns, "an official split needs a column 'split'"
        assert "train" in set(records.columns["split"]), "no image of the split is for training"


@CHECKS.add
def images_can_be_read_in_other_processes(subject: Subject) -> None:
    """``data.workers`` pickles them."""
    images = _load_records(subject).images
    again = pickle.loads(pickle.dumps(images))
    assert np.array_equal(np.asarray(again[0]), np.asarray(images[0])), "image 0 differs"


def _load_records(subject: Subject) -> Records:
    records: Records = subject.make_component().load()
    return records

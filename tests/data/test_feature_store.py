"""Features on disk: found by content, whole after a kill, shared, and within a limit."""

import os

import numpy as np
import pytest
from PIL import Image

from fewlabels.data.feature_store import (
    KEY,
    FeatureStore,
    find_cache,
    hash_images,
    make_room,
    read_limit,
)
from fewlabels.data.lazy_images import from_arrays, from_files
from fewlabels.errors import FewLabelsError


def make_keys(*numbers):
    return np.array([n.to_bytes(16, "little") for n in numbers], KEY)


def test_features_are_found_again_by_key(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    store = FeatureStore(tmp_path / "a", 3)
    assert store.map_rows().shape == (0, 3)
    store.add_rows(make_keys(5, 6), rows[:2])
    store.add_rows(make_keys(6, 7, 8), np.concatenate([rows[:1], rows[2:]]))  # 6 is known: kept
    again = FeatureStore(tmp_path / "a", 3)
    assert again.find_rows(make_keys(8, 1, 5, 6)).tolist() == [3, -1, 0, 1]
    assert again.map_rows()[again.find_rows(make_keys(8, 6))].tolist() == [[9, 10, 11], [3, 4, 5]]


@pytest.mark.parametrize("file", ["features.bin", "images.bin"])
def test_half_a_write_is_written_over(tmp_path, file):
    rows = np.arange(9, dtype=np.float32).reshape(3, 3)
    store = FeatureStore(tmp_path, 3)
    store.add_rows(make_keys(1, 2), rows[:2])
    with open(tmp_path / file, "ab") as stream:
        stream.write(b"half a row, and more")  # as a killed process leaves it
    store.add_rows(make_keys(3), rows[2:])
    assert store.find_rows(make_keys(1, 2, 3)).tolist() == [0, 1, 2]
    assert store.map_rows().tolist() == rows.tolist()


def test_two_open_stores_keep_what_both_add(tmp_path):
    one, two = FeatureStore(tmp_path, 1), FeatureStore(tmp_path, 1)
    one.add_rows(make_keys(1), np.ones((1, 1)))
    two.add_rows(make_keys(1, 2), np.full((2, 1), 2.0))
    assert one.map_rows().tolist() == [[1], [2]]


def test_images_are_the_same_by_their_bytes_wherever_they_lie(tmp_path):
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (3, 8, 8, 3), np.uint8)
    files = [tmp_path / f"{n}.png" for n in range(3)]
    for file, array in zip(files, (arrays[0], arrays[1], arrays[0]), strict=True):
        Image.fromarray(array).save(file)
    keys = hash_images(from_files(files), np.arange(3))
    assert keys[0] == keys[2] != keys[1]
    keys = hash_images(from_arrays(arrays), np.array([2, 0]))
    assert keys[1] == hash_images([Image.fromarray(arrays[0])], np.array([0]))[0] != keys[0]


def test_the_least_recently_used_go_first_and_used_ones_stay(tmp_path):
    stores = [FeatureStore(tmp_path / name / "plain", 100) for name in "abc"]
    for age, store in enumerate(stores):
        store.add_rows(make_keys(*range(10)), np.zeros((10, 100)))
        os.utime(store.index, (age, age))
    assert make_room(tmp_path, 6000, [stores[0].folder]) == 6000
    assert make_room(tmp_path, 4000, [stores[0].folder]) == 4000
    assert [store.folder.exists() for store in stores] == [True, False, True]
    assert make_room(tmp_path, 0, [stores[0].folder]) == 2000  # a run's own stay


def test_the_cache_is_where_and_as_large_as_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path))
    monkeypatch.setenv("FEWLABELS_CACHE_GB", "0.5")
    assert (find_cache(), read_limit()) == (tmp_path, 2**29)
    monkeypatch.setenv("FEWLABELS_CACHE_GB", "much")
    with pytest.raises(FewLabelsError, match="'much'; set it to a number of GiB"):
        read_limit()

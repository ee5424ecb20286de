"""Keypoints, their store, and pairs of images that show one object."""

import sys

import numpy as np
import pytest
from pictures import moved, texture
from PIL import Image

from fewlabels.components.discovery import candidates, keypoint_store, matching
from fewlabels.components.discovery.candidates import find_candidates
from fewlabels.components.discovery.keypoint_store import KeypointStore
from fewlabels.components.discovery.keypoints import (
    Keypoints,
    Match,
    describe_keypoints,
    match_keypoints,
)
from fewlabels.components.discovery.matching import Matching, reverse_match
from fewlabels.contracts import Pool
from fewlabels.errors import ComponentError, DataError

SIZE = 128


def seen(image, tilt=0, features=200):
    return describe_keypoints(image, SIZE, features, tilt)


def away(found, truth):
    """The farthest that the found map sends the middle and the half-way points from the truth."""
    points = np.array([[0, 0, 1], [0.5, 0, 1], [0, 0.5, 1], [-0.5, 0.5, 1]])
    return np.abs(points @ (found.affine - truth).T).max()


@pytest.mark.parametrize("turn", [{}, {"angle": 0.4, "zoom": 0.8}, {"x": 0.2, "y": -0.1}])
def test_an_affine_map_is_found_again_to_half_a_pixel(turn):
    image = texture(0)
    other, truth = moved(image, **turn)
    found = match_keypoints(seen(image), seen(other), SIZE)
    assert len(found.points) >= 40
    assert away(found, truth) < 2 * 0.5 / SIZE
    left, right = found.points[:, :2], found.points[:, 2:]
    sent = left @ truth[:, :2].T + truth[:, 2]
    assert np.abs(sent - right).max() < 2 * 4 / SIZE
    assert (
        away(reverse_match(match_keypoints(seen(other), seen(image), SIZE)), truth) < 2 * 0.5 / SIZE
    )


def test_coordinates_are_those_of_the_middle_square():
    image = texture(1)
    wide = Image.new("RGB", (2 * image.width, image.height))
    wide.paste(image, (image.width // 2, 0))
    a, b = seen(image), seen(wide)
    assert np.allclose(a.points, b.points)
    assert np.abs(a.points).max() <= 1
    dots = Image.new("L", (SIZE, SIZE))
    dots.paste(255, (90, 30, 96, 36))  # its middle is at 93, 33 pixels from the corner
    (nearest,) = seen(dots.convert("RGB"), features=1).points[:1]
    assert np.abs(nearest - (2 * np.array([93, 33]) / SIZE - 1)).max() < 2 / SIZE


def test_different_images_have_little_in_common():
    described = [seen(texture(seed)) for seed in range(8)]
    counts = []
    for i in range(8):
        for j in range(i):
            found = match_keypoints(described[i], described[j], SIZE)
            counts.append(0 if found is None else len(found.points))
    assert max(counts) < 10


def test_descriptors_are_rootsift():
    keypoints = seen(texture(2))
    assert keypoints.descriptors.dtype == np.uint8
    lengths = np.linalg.norm(keypoints.descriptors.astype(float) / 512, axis=1)
    assert np.abs(lengths - 1).max() < 0.05


@pytest.mark.parametrize(
    "linear",
    [
        [[1, 0], [0, -1.0]],  # mirrors
        [[0.2, 0], [0, 0.2]],  # shrinks areas 25 times
        [[1, 0], [0, 0.2]],  # stretches 5 times
    ],
)
def test_degenerate_maps_are_refused(linear):
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (60, 2)).astype(np.float32)
    descriptors = rng.integers(0, 90, (60, 128)).astype(np.uint8)
    there = (points @ np.array(linear, np.float32).T).astype(np.float32)
    good = Keypoints(points, descriptors)
    assert match_keypoints(good, good, SIZE) is not None
    assert match_keypoints(good, Keypoints(there, descriptors), SIZE) is None


def test_images_without_keypoints_match_nothing():
    blank = seen(Image.new("RGB", (50, 70), "grey"))
    assert blank.points.shape == (0, 2)
    assert blank.descriptors.shape == (0, 128)
    assert match_keypoints(blank, seen(texture(0)), SIZE) is None
    assert match_keypoints(blank, blank, SIZE) is None


def test_affine_sift_finds_what_sift_does_not():
    image = texture(3)
    other, truth = moved(image, angle=0.5, tilt=0.3)
    plain = match_keypoints(seen(image), seen(other), SIZE)
    found = match_keypoints(seen(image, 3, 100), seen(other, 3, 100), SIZE)
    assert len(found.points) >= 20
    assert len(found.points) > 3 * (0 if plain is None else len(plain.points))
    assert away(found, truth) < 0.1


def test_a_store_gives_back_what_was_added_and_others_may_add_too(tmp_path):
    described = {str(seed): seen(texture(seed), features=20 + seed) for seed in range(3)}
    first, second = KeypointStore(tmp_path), KeypointStore(tmp_path)
    first.add({"0": described["0"], "none": Keypoints(np.empty((0, 2)), np.empty((0, 128)))})
    second.add({k: described[k] for k in ("1", "0")})
    first.add({"2": described["2"]})
    store = KeypointStore(tmp_path)
    assert set(store.places) == {"0", "1", "2", "none"}
    for key, keypoints in described.items():
        assert np.array_equal(store[key].points, keypoints.points)
        assert np.array_equal(store[key].descriptors, keypoints.descriptors)
    assert store["none"].points.shape == (0, 2)
    size = sum(len(k.points) for k in described.values()) * keypoint_store.ROW
    assert (tmp_path / "keypoints.bin").stat().st_size == size  # nothing twice


def test_candidates_are_the_nearest_of_each_label():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 5)).astype(np.float32), rng.integers(-1, 3, 30)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = set()
    for i in range(30):
        own = [j for j in range(30) if j != i and labels[i] >= 0 and labels[j] == labels[i]]
        for j in sorted(own, key=lambda j, i=i: -unit[i] @ unit[j])[:2]:
            expected.add((min(i, j), max(i, j)))
    assert {tuple(p) for p in find_candidates(features, labels, 2).tolist()} == expected
    alone = find_candidates(features[:3], np.array([0, 1, -1]), 2)
    assert alone.shape == (0, 2)
    every = find_candidates(features, labels, "all")
    counts = np.bincount(labels[labels >= 0])
    assert len(every) == sum(n * (n - 1) // 2 for n in counts)


def test_candidates_across_clusters_are_the_nearest_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 5)).astype(np.float32), rng.integers(0, 6, 30)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = set()
    for i in range(30):
        for j in sorted(set(range(30)) - {i}, key=lambda j, i=i: -unit[i] @ unit[j])[:3]:
            expected.add((min(i, j), max(i, j)))
    monkeypatch.setattr(candidates, "BLOCK", 64)  # two rows at once
    pairs = find_candidates(features, labels, 3, across=True)
    assert {tuple(p) for p in pairs.tolist()} == expected
    assert (labels[pairs[:, 0]] != labels[pairs[:, 1]]).any()
    with pytest.raises(DataError, match="all pairs of the images"):
        Matching(neighbours="all", across=True)


@pytest.fixture(scope="module")
def objects():
    """Five views of each of four objects, in two clusters of two objects each."""
    rng = np.random.default_rng(0)
    images, truth = [], []
    for label in range(4):
        for _ in range(5):
            angle, zoom, x, y = rng.uniform((-0.3, 0.8, -0.1, -0.1), (0.3, 1.1, 0.1, 0.1))
            images.append(moved(texture(label), angle, zoom, x, y)[0])
            truth.append(label)
    truth = np.array(truth)
    features = np.eye(8, dtype=np.float32)[truth // 2] + 0.1 * rng.normal(size=(20, 8))
    return images, truth, features.astype(np.float32)


def pool(objects, features=None):
    images, truth, own = objects
    rows = 100 + np.arange(len(images))
    features = own if features is None else features
    return Pool(rows, features, truth // 2, np.zeros(len(rows), bool), images=images)


def found(component, *args):
    return component.discover(pool(*args), 0, np.random.default_rng(0)).pairs


OPTIONS = {"size": SIZE, "features": 100, "min_inliers": 12, "workers": 0}


def test_pairs_show_one_object(objects, tmp_path):
    truth = objects[1]
    result = Matching(**OPTIONS, cache=str(tmp_path)).discover(
        pool(objects), 0, np.random.default_rng(0)
    )
    assert len(result.indices) == len(result.labels) == len(result.scores) == 0
    pairs = result.pairs
    assert len(set(pairs.left.tolist())) == 20
    assert np.bincount(pairs.left).max() == 2
    assert (truth[pairs.left] == truth[pairs.right]).all()
    assert (pairs.left != pairs.right).all()
    for n, points in enumerate(pairs.points):
        assert len(points) == pairs.scores[n] >= 12
        linear, shift = pairs.affine[n, :, :2], pairs.affine[n, :, 2]
        errors = np.abs(points[:, :2] @ linear.T + shift - points[:, 2:]).max(1)
        assert np.median(errors) < 2 * 3 / SIZE
        for box, side in ((pairs.left_box[n], points[:, :2]), (pairs.right_box[n], points[:, 2:])):
            assert (box >= 0).all()
            assert (box <= 1 + 1e-6).all()
            width, height = box[2] - box[0], box[3] - box[1]
            assert width == pytest.approx(height, abs=1e-5)
            assert width >= 0.3 - 1e-5
            inside = (side + 1) / 2
            assert (inside >= box[:2] - 1e-5).all()
            assert (inside <= box[2:] + 1e-5).all()


def test_one_object_in_two_clusters_is_found_across_them(objects, tmp_path):
    images, truth, features = objects
    split = np.arange(20) % 2  # clusters that say nothing of objects
    pool = Pool(np.arange(20), features, split, np.zeros(20, bool), images=images)
    rng = np.random.default_rng(0)
    for across in (False, True):
        matching = Matching(**OPTIONS, neighbours=9, across=across, cache=str(tmp_path))
        pairs = matching.discover(pool, 0, rng).pairs
        assert (truth[pairs.left] == truth[pairs.right]).all()
        assert (split[pairs.left] != split[pairs.right]).any() == across


def test_affine_sift_has_a_threshold_and_a_number_of_keypoints_of_its_own(objects, tmp_path):
    options = {"detector": "asift", "size": SIZE, "features": 15, "matches": 9, "workers": 0}
    pairs = found(Matching(**options, cache=str(tmp_path)), objects)
    assert pairs.scores.min() >= 20
    more = found(Matching(**options, min_inliers=12, cache=str(tmp_path)), objects)
    assert more.scores.min() < 20
    (folder,) = (tmp_path / "keypoints").iterdir()
    assert folder.name == f"{SIZE}-3-5"


def test_processes_find_the_same(objects, tmp_path):
    alone = found(Matching(**OPTIONS, cache=str(tmp_path / "a")), objects)
    many = found(Matching(**{**OPTIONS, "workers": 2}, cache=str(tmp_path / "b")), objects)
    assert np.array_equal(alone.left, many.left)
    assert np.array_equal(alone.right, many.right)
    assert np.array_equal(alone.affine, many.affine)


def test_an_image_is_described_once_and_a_pair_matched_once(objects, tmp_path, monkeypatch):
    described, matched = [], []
    monkeypatch.setattr(
        matching, "describe_keypoints", lambda *a: described.append(1) or describe_keypoints(*a)
    )
    monkeypatch.setattr(
        matching, "match_keypoints", lambda *a: matched.append(1) or match_keypoints(*a)
    )
    options = {**OPTIONS, "neighbours": 3}
    component = Matching(**options, cache=str(tmp_path))
    first = found(component, objects)
    wanted = find_candidates(objects[2], objects[1] // 2, 3)
    assert (len(described), len(matched)) == (20, len(wanted))
    again = found(component, objects)
    assert (len(described), len(matched)) == (20, len(wanted))
    assert np.array_equal(first.left, again.left)
    changed = objects[2] + 0.3 * np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    later = find_candidates(changed, objects[1] // 2, 3)
    new = {tuple(p) for p in later.tolist()} - {tuple(p) for p in wanted.tolist()}
    assert 0 < len(new) < len(later)
    found(component, objects, changed)
    assert (len(described), len(matched)) == (20, len(wanted) + len(new))

    other = Matching(**options, cache=str(tmp_path))  # another run: keypoints are on disk
    other.load_state_dict(component.state_dict())  # and a resumed one knows the pairs
    resumed = found(other, objects, changed)
    assert (len(described), len(matched)) == (20, len(wanted) + len(new))
    assert np.array_equal(resumed.left, found(component, objects, changed).left)
    fresh = found(Matching(**options, cache=str(tmp_path)), objects)
    assert len(described) == 20
    assert len(matched) == 2 * len(wanted) + len(new)
    assert np.array_equal(fresh.affine, first.affine)


def test_the_state_holds_every_match_and_failure(objects, tmp_path):
    component = Matching(**OPTIONS, cache=str(tmp_path))
    found(component, objects)
    other = Matching(**OPTIONS, cache=str(tmp_path))
    other.load_state_dict(component.state_dict())
    assert other.known.keys() == component.known.keys() == {0}
    assert other.known[0].keys() == component.known[0].keys()
    assert None in component.known[0].values()
    for key, one in component.known[0].items():
        if one is None:
            assert other.known[0][key] is None
        else:
            assert np.array_equal(other.known[0][key].affine, one.affine)
            assert np.array_equal(other.known[0][key].points, one.points)


def test_a_cascade_looks_again_only_at_images_without_partner(tmp_path):
    image = texture(0)
    tilted, _ = moved(texture(5), angle=0.5, tilt=0.3)
    images = [image, moved(image, angle=0.2)[0], texture(5), tilted]
    few = (images, np.array([0, 0, 1, 1]), np.ones((4, 3), np.float32))
    plain = found(Matching(**OPTIONS, cache=str(tmp_path)), few)
    assert set(plain.left.tolist()) == {0, 1}
    cascade = Matching(**OPTIONS, detector="cascade", cache=str(tmp_path))
    pairs = found(cascade, few)
    assert {(2, 3), (3, 2)} <= set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert len(cascade.known[0]) >= len(cascade.known[3]) > 0
    assert (100, 101) not in cascade.known[3]


def test_nothing_in_common_is_no_pairs(tmp_path):
    images = [texture(seed) for seed in range(3)]
    few = (images, np.zeros(3, int), np.ones((3, 2), np.float32))
    pairs = found(Matching(**OPTIONS, cache=str(tmp_path)), few)
    assert len(pairs.left) == len(pairs.points) == 0
    assert pairs.affine.shape == (0, 2, 3)
    assert pairs.left_box.shape == (0, 4)


def test_turning_a_match_twice_changes_nothing():
    rng = np.random.default_rng(0)
    one = Match(
        np.array([[0.9, 0.2, 0.1], [-0.1, 1.1, 0.3]], np.float32),
        rng.random((4, 4)).astype(np.float32),
    )
    back = reverse_match(reverse_match(one))
    assert np.allclose(back.affine, one.affine, atol=1e-6)
    assert np.array_equal(back.points, one.points)
    linear, shift = reverse_match(one).affine[:, :2], reverse_match(one).affine[:, 2]
    sent = one.points[:, :2] @ one.affine[:, :2].T + one.affine[:, 2]
    assert np.allclose(sent @ linear.T + shift, one.points[:, :2], atol=1e-5)


def test_missing_opencv_is_one_sentence(objects, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ComponentError, match=r"pip install 'fewlabels\[matching\]'"):
        found(Matching(**OPTIONS, cache=str(tmp_path)), objects)

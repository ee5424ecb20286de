"""Matched pairs on their way from the discovery to a training step, and a stopped run's."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from pictures import moved, texture
from run_folders import load_newest_modules, read_rows, remove_checkpoints_after

import fewlabels
from fewlabels.components.views.flip import Flip
from fewlabels.components.views.homography import Homography
from fewlabels.contracts import LabelState, Pairs, Phase, Stream
from fewlabels.data.pixels import Pixels
from fewlabels.data.view_pipeline import Pipeline
from fewlabels.ops import geometry
from fewlabels.recipe.recipe import recipe_from
from fewlabels.training.batches import POINTS, Batches
from fewlabels.training.round_schedule import RoundSchedule
from fewlabels.training.state import State, flatten_pairs, gather_pairs


def some_pairs():
    """Three pairs of five images, with 3, 0 and 50 common points."""
    rng = np.random.default_rng(0)
    affine = np.tile(np.array([[1.0, 0.1, 0.05], [-0.1, 1, 0.1]], np.float32), (3, 1, 1))
    points = []
    for count in (3, 0, 50):
        left = rng.uniform(-0.5, 0.5, (count, 2)).astype(np.float32)
        right = left @ affine[0, :, :2].T + affine[0, :, 2]
        points.append(np.concatenate([left, right], 1))
    eighths = [[1, 1, 7, 7], [0, 2, 5, 7], [2, 0, 8, 6]]
    boxes = np.array(eighths, np.float32) / 8
    return Pairs(
        np.array([0, 1, 2]),
        np.array([3, 4, 0]),
        boxes,
        boxes[::-1].copy(),
        affine,
        tuple(points),
        np.array([3.0, 0, 50], np.float32),
    )


def test_pairs_survive_being_saved():
    pairs = some_pairs()
    labels = np.arange(5)
    state = State(LabelState(labels, labels, labels < 0, None, pairs, False))
    arrays, values = state.save()
    other = State(LabelState(labels, labels, labels < 0, None, None, False))
    other.load(arrays, values)
    assert flatten_pairs(other.label_state.pairs).keys() == flatten_pairs(pairs).keys()
    for key, value in flatten_pairs(pairs).items():
        assert np.array_equal(flatten_pairs(other.label_state.pairs)[key], value), key
    for ours, theirs in zip(other.label_state.pairs.points, pairs.points, strict=True):
        assert np.array_equal(ours, theirs)
    assert gather_pairs({}) is None
    none = Pairs(*(v[:0] for v in (pairs.left, pairs.right)), *(np.empty((0, 4)),) * 2,
                 np.empty((0, 2, 3)), (), np.empty(0))  # fmt: skip
    assert gather_pairs(flatten_pairs(none)).points == ()


def batches(views, pairs, labels=(7, 8, 9, 7, 8)):
    images = [texture(seed, 48) for seed in range(5)]

    def prepare(image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    pixels = Pixels(images, np.arange(5), prepare).decode_all(1e9)
    found = LabelState(np.array(labels), np.array(labels), np.zeros(5, bool), None, pairs, True)
    stream = Stream("pairs", 3, (Pipeline(views, 32),))
    images_stream = Stream("labelled", 2, (Pipeline([], 32),))
    phase = Phase("embed", (), {"images": images_stream, "pairs": stream}, steps=1)
    source = Batches(Accelerator(cpu=True), pixels, RoundSchedule(channels_last=False), 0)
    source.check_streams(phase)
    seed = lambda purpose, *at: abs(hash((purpose, at))) % 2**31  # noqa: E731
    ((_, batch),) = source(phase, found, seed, 0, 0)
    return batch, pixels


def test_a_step_sees_the_sub_images_and_knows_where_each_point_went():
    pairs = some_pairs()
    batch, pixels = batches([Homography(crop=(0.6, 1.0), rotation=20), Flip()], pairs)
    part, partners = batch["pairs"], batch["pairs"].partners
    order = [pairs.left.tolist().index(i) for i in part.indices.tolist()]
    assert sorted(order) == [0, 1, 2]
    assert partners.indices.tolist() == pairs.right[order].tolist()
    assert part.labels.tolist() == np.array([7, 8, 9, 7, 8])[pairs.left[order]].tolist()
    assert partners.there.sum(1).tolist() == [min(POINTS, len(pairs.points[n])) for n in order]
    (left,), (right,) = part.views, partners.views
    assert left.images.shape == right.images.shape == (3, 3, 32, 32)
    for view, rows in ((left, part.indices), (right, partners.indices)):
        expected = geometry.warp_images(pixels.kept[rows].float() / 255, view.matrix, (32, 32))
        torch.testing.assert_close(view.images, expected)
    # From the left view through the left image and the affine map to the right view.
    through = geometry.compose_maps(geometry.invert_map(left.matrix), partners.affine, right.matrix)
    sent = geometry.map_points(through, geometry.map_points(left.matrix, partners.points[..., :2]))
    there = geometry.map_points(right.matrix, partners.points[..., 2:])
    torch.testing.assert_close(sent[partners.there], there[partners.there], atol=1e-4, rtol=0)


def test_without_views_a_sub_image_is_its_box():
    pairs = some_pairs()
    batch, pixels = batches([], pairs)
    part = batch["pairs"]
    for row, i in enumerate(part.indices.tolist()):
        x0, y0, x1, y1 = (48 * pairs.left_box[i]).round().astype(int)
        box = pixels.kept[i : i + 1, :, y0:y1, x0:x1].float() / 255
        shown = torch.nn.functional.interpolate(box, (32, 32), mode="bilinear")
        assert (part.views[0].images[row] - shown[0]).abs().mean() < 0.02


@pytest.mark.parametrize("pairs", [None, "empty"])
def test_while_there_are_no_pairs_there_is_no_part(pairs):
    if pairs:
        full = flatten_pairs(some_pairs())
        pairs = gather_pairs({k: v[:0] for k, v in full.items()})
    batch, _ = batches([], pairs)
    assert batch.keys() == {"images"}


# ---------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Six views of each of five objects, as a folder."""
    place = tmp_path_factory.mktemp("shelf")
    rng = np.random.default_rng(0)
    for label in range(5):
        folder = place / f"object{label}"
        folder.mkdir()
        for number in range(6):
            turn = rng.uniform((-0.3, 0.8, -0.1, -0.1), (0.3, 1.1, 0.1, 0.1))
            moved(texture(label, 96), *turn)[0].save(folder / f"{number}.png")
    return place


def recipe(shelf, cache, **changes):
    return {
        "name": "recipe",
        "data": {"source": "folder", "path": str(shelf), "split": "all"},
        "model": {
            "backbone": "convnet3",
            "image_size": 32,
            "embedding_size": 16,
            "freeze_batchnorm": "statistics",
            "backbone_options": {"width": 0.25},
        },
        "blocks": {"name": "cbam", "after": "conv3", "reduction": 4},
        "views": [{"name": "homography", "crop": [0.7, 1.0], "rotation": 20}],
        "strategy": {"name": "tac_ccl", "batch": 10, "per_class": 5, "pairs": 4},
        "discovery": [
            {"name": "kmeans", "clusters": 3},
            {"name": "matching", "size": 96, "features": 80, "min_inliers": 8, "cache": str(cache),
             "workers": 0},
        ],
        "losses": ["multi_similarity", "attention_consistency", "feature_similarity"],
        "optimizer": {"name": "adam", "lr": 1e-3},
        "rounds": {"rounds": 2, "steps_per_epoch": 6},
        "train": {"log_every": 1},
        **changes,
    }  # fmt: skip


def rows(folder, kind):
    return read_rows(folder, kind)


def weights(folder):
    return load_newest_modules(folder)


def test_a_run_with_pairs_stopped_within_a_round_goes_on_bit_for_bit(shelf, tmp_path):
    own = recipe(shelf, tmp_path / "cache")
    whole = fewlabels.train(own, out=tmp_path / "whole").folder
    told = [row for row in rows(whole, "discovery") if row["discovery"] == "matching"]
    assert all(row["pairs"] > 10 for row in told)
    assert all(row["pairs_right"] > 0.95 for row in told)
    assert all(row["cluster_pairs_right"] < 0.9 for row in told)
    cut = fewlabels.train(own, ["train.checkpoint_every=4"], out=tmp_path / "cut").folder
    remove_checkpoints_after(cut, 8)
    again = fewlabels.train(resume=cut).folder
    without = fewlabels.train(own, ["strategy.pairs=0"], out=tmp_path / "without").folder
    differs = False
    for name, value in weights(whole).items():
        assert np.array_equal(value, weights(again)[name]), name
        differs = differs or not np.array_equal(value, weights(without)[name])
    assert differs


@pytest.mark.slow
def test_two_processes_train_as_one_on_pairs(shelf, tmp_path, in_one_and_two_processes):
    own = recipe(shelf, tmp_path / "cache", rounds={"steps_per_epoch": 6})
    one, two = in_one_and_two_processes(recipe_from(own))
    first, second = rows(one, "train"), rows(two, "train")
    assert len(first) == len(second) == 6
    for a, b in zip(first, second, strict=True):
        for term in ("loss", "attention_consistency", "feature_similarity"):
            assert b[term] == pytest.approx(a[term], rel=1e-3), term

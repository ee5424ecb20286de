"""Confined maximum entropy against the equations, written as plain loops."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from fewlabels.components.discovery.confined_entropy import (
    ConfinedEntropy,
    compute_entropy,
    vote_soft_labels,
)
from fewlabels.contracts import Pool
from fewlabels.errors import DataError
from fewlabels.ops.centres import measure_distances


def pool_of(features, labels):
    labels = np.asarray(labels)
    features = np.asarray(features, np.float32)
    return Pool(np.arange(len(labels)), features, labels, labels >= 0)


def discover(features, labels, budget, seed=0, **options):
    options = {"normalise": False, **options}
    rng = np.random.default_rng(seed)
    return ConfinedEntropy(**options).discover(pool_of(features, labels), budget, rng)


def plain(x, labelled, labels, classes, beta, per_class):
    """Eq. 3.10 and 3.11 for one sample."""
    order = sorted(range(len(labelled)), key=lambda i: (np.linalg.norm(x - labelled[i]), i))
    votes = [0.0] * classes
    for rank, i in enumerate(order, 1):
        votes[labels[i]] += beta / (beta + rank / len(labelled))
    if per_class:
        votes = [vote / list(labels).count(c) for c, vote in enumerate(votes)]
    return [vote / sum(votes) for vote in votes]


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("block_bytes", [1, 28 * 17 * 3, 2**28])
@pytest.mark.parametrize("beta", [0.01, 0.1])
def test_the_soft_label_is_a_double_loop(per_class, block_bytes, beta):
    rng = np.random.default_rng(0)
    labels = np.array([0] * 9 + [1] * 3 + [2] * 5)
    features, labelled = rng.normal(5, 1, (8, 6)), rng.normal(5, 1, (17, 6))
    ours = vote_soft_labels(features, labelled, labels, 3, beta, per_class, block_bytes)
    theirs = [plain(x, labelled, labels, 3, beta, per_class) for x in features]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_features_far_from_the_origin_are_ranked_as_well():
    """In float32 their squares, a million each, would hide the differences."""
    rng = np.random.default_rng(0)
    labels = np.arange(17) % 3
    features, labelled = (rng.normal(1000, 1, (n, 6)).astype(np.float32) for n in (8, 17))
    ours = vote_soft_labels(features, labelled, labels, 3, 0.01)
    exact = features.astype(np.float64), labelled.astype(np.float64)
    theirs = [plain(x, exact[1], labels, 3, 0.01, True) for x in exact[0]]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_the_copy_of_a_labelled_sample_is_nearest_to_it():
    """Rounding leaves some of the squared distances below 0."""
    labelled = np.random.default_rng(0).normal(5, 1, (200, 32)).astype(np.float32)
    soft = vote_soft_labels(labelled, labelled, np.arange(200), 200, 0.1)
    assert soft.argmax(1).tolist() == list(range(200))


def peak(what):
    """Bytes that are allocated while ``what`` runs."""
    tracemalloc.start()
    what()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_is_bounded_by_the_block_and_the_result_is_not_changed():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(2500, 8)).astype(np.float32), np.arange(2500) % 3
    labels[500:] = -1
    options = {"confined": False, "normalise": False}
    blocks = [{}, {"block_bytes": 2**20}]
    results = [discover(features, labels, 400, **options, **block) for block in blocks]
    assert results[0].indices.tolist() == results[1].indices.tolist()
    most = [peak(lambda b=b: discover(features, labels, 400, **options, **b)) for b in blocks]
    assert most[0] > 1e7  # 2,000 x 500 at 12 bytes, in one block
    assert most[1] < 3e6


def test_distances_to_centres_are_blocked_too():
    features = np.random.default_rng(0).normal(size=(5000, 64)).astype(np.float32)
    centres = features[:3]
    whole, blocked = (
        measure_distances(features, centres),
        measure_distances(features, centres, 2**19),
    )
    assert (whole == blocked).all()
    assert (whole.argmin(0) == [0, 1, 2]).all()
    assert (whole.min(0) == 0).all()
    exact = np.sqrt(((features[:, None].astype(np.float64) - centres) ** 2).sum(2))
    np.testing.assert_allclose(whole, exact, rtol=1e-12)
    assert peak(lambda: measure_distances(features, centres)) > 5e6
    assert peak(lambda: measure_distances(features, centres, 2**19)) < 1e6


def test_the_options_reach_the_votes():
    features, labels = crowd()
    found = discover(features, labels, 40, beta=0.02, confined=False)
    soft = np.array([plain(x, features[:30], labels[:30], 3, 0.02, True) for x in features[30:]])
    np.testing.assert_allclose(
        found.scores, [sum(p * math.log2(p) for p in r) for r in soft], rtol=1e-4
    )
    assert ConfinedEntropy().needs().model == "student"
    assert ConfinedEntropy(by="master").needs().model == "master"


def test_entropy_is_in_bits():
    rows = np.array([[0.5, 0.5, 0, 0], [0.25] * 4, [1, 0, 0, 0], [0.7, 0.2, 0.1, 0]])
    by_hand = -(0.7 * math.log2(0.7) + 0.2 * math.log2(0.2) + 0.1 * math.log2(0.1))
    np.testing.assert_allclose(compute_entropy(rows), [1, 2, 0, by_hand])


def test_the_biggest_class_wins_as_printed_and_not_per_class():
    """60 of class A, 10 of class B, of which the ten nearest are all B."""
    labelled = np.array([[10.0 + i] for i in range(60)] + [[1.0 + i / 10] for i in range(10)])
    labels = np.array([0] * 60 + [1] * 10)
    b = sum(0.1 / (0.1 + rank / 70) for rank in range(1, 11))
    a = sum(0.1 / (0.1 + rank / 70) for rank in range(11, 71))
    assert a / (a + b) == pytest.approx(0.64, abs=0.01)
    (printed,) = vote_soft_labels(np.zeros((1, 1)), labelled, labels, 2, 0.1, per_class=False)
    (ours,) = vote_soft_labels(np.zeros((1, 1)), labelled, labels, 2, 0.1, per_class=True)
    np.testing.assert_allclose(printed, [a / (a + b), b / (a + b)], rtol=1e-5)
    np.testing.assert_allclose(ours[1], (b / 10) / (b / 10 + a / 60), rtol=1e-5)
    assert printed.argmax() == 0
    assert ours.argmax() == 1
    features = np.concatenate([labelled, [[0.0]]])
    for per_class, winner in [(False, 0), (True, 1)]:
        found = discover(features, [*labels, -1], 1, per_class=per_class, confined=False)
        assert found.labels.tolist() == [winner]


def test_per_class_changes_nothing_while_classes_are_balanced():
    rng = np.random.default_rng(1)
    features, labelled, labels = (
        rng.normal(size=(9, 4)),
        rng.normal(size=(12, 4)),
        np.arange(12) % 3,
    )
    both = [vote_soft_labels(features, labelled, labels, 3, 0.1, p) for p in (True, False)]
    np.testing.assert_allclose(*both, rtol=1e-5)


def test_of_labelled_samples_at_one_distance_the_first_is_nearer():
    (soft,) = vote_soft_labels(np.zeros((1, 2)), np.ones((4, 2)), np.array([0, 1, 2, 3]), 4, 0.1)
    assert (np.diff(soft) < 0).all()
    (soft,) = vote_soft_labels(np.ones((1, 2)), np.ones((4, 2)), np.array([0, 1, 2, 3]), 4, 0.1)
    assert (np.diff(soft) < 0).all()  # at distance 0, where rounding may give -0


# Two classes on a line at 0 and 10; the others stand between and beyond.
LINE = [[0.0], [10.0], [1.0], [2.0], [4.9], [8.0], [30.0], [5.2]]
KNOWN = [0, 1, -1, -1, -1, -1, -1, -1]


def test_the_confined_set_is_a_share_or_a_distance():
    everybody = discover(LINE, KNOWN, 9, confined=False)
    assert everybody.indices.tolist() == [2, 3, 4, 5, 6, 7]
    assert everybody.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert discover(LINE, KNOWN, 9, confine=0.5).indices.tolist() == [2, 3, 5]
    assert discover(LINE, KNOWN, 9, delta=4.85).indices.tolist() == [2, 3, 5, 7]
    assert discover(LINE, KNOWN, 9, delta=1.5).indices.tolist() == [2]
    assert discover(LINE, KNOWN, 9, delta=1.5, confined=False).indices.tolist() == [
        2,
        3,
        4,
        5,
        6,
        7,
    ]
    assert discover(LINE, KNOWN, 9, confine=0.01).indices.tolist() == [2]  # never nobody


def crowd():
    """Three classes of ten in the plane; their votes for others differ from place to place."""
    rng = np.random.default_rng(3)
    labels = np.arange(30) % 3
    features = np.array([[0, 0], [6, 0], [0, 6]])[labels] + rng.normal(size=(30, 2))
    others = rng.uniform(-2, 8, size=(40, 2))
    return np.concatenate([features, others]), np.concatenate([labels, np.full(40, -1)])


@pytest.mark.parametrize("order", ["max", "min"])
def test_the_highest_or_the_lowest_entropies_are_taken(order):
    features, labels = crowd()
    found = discover(features, labels, 7, order=order, confined=False)
    soft = np.array([plain(x, features[:30], labels[:30], 3, 0.1, True) for x in features[30:]])
    bits = np.array([-sum(p * math.log2(p) for p in row) for row in soft])
    place = np.argsort(-bits if order == "max" else bits)[:7]
    assert found.indices.tolist() == sorted(30 + place)
    assert found.labels.tolist() == soft[found.indices - 30].argmax(1).tolist()
    np.testing.assert_allclose(found.scores, -bits[found.indices - 30], rtol=1e-4)
    np.testing.assert_allclose(found.centres[1], features[:30][labels[:30] == 1].mean(0), rtol=1e-5)


def test_balance_takes_as_many_of_each_class():
    features, labels = crowd()
    found = discover(features, labels, 6, balance=True, confined=False)
    assert np.bincount(found.labels).tolist() == [2, 2, 2]


def test_class_numbers_need_not_begin_at_0():
    features, labels = crowd()
    shifted = np.where(labels >= 0, 10 * labels + 4, -1)
    one, two = discover(features, labels, 9), discover(features, shifted, 9)
    assert (one.indices == two.indices).all()
    assert (10 * one.labels + 4 == two.labels).all()


def test_features_are_scaled_to_length_1_unless_asked_otherwise():
    features = [[1.0, 0.1], [0.1, 1.0], [50.0, 1.0], [0.2, 0.3]]
    labels = [0, 1, -1, -1]
    scaled = discover(features, labels, 1, confine=0.5, normalise=True)
    raw = discover(features, labels, 1, confine=0.5, normalise=False)
    assert scaled.indices.tolist() == [2]
    assert raw.indices.tolist() == [3]


def test_equal_entropies_are_taken_by_the_draw_and_not_by_their_place():
    features, labels = [[0.0], [9.0]] + [[1.0]] * 50, [0, 1] + [-1] * 50
    drawn = [tuple(discover(features, labels, 3, seed=s, confined=False).indices) for s in range(4)]
    assert len(set(drawn)) > 1
    assert drawn[0] == tuple(discover(features, labels, 3, seed=0, confined=False).indices)
    assert all(list(d) == sorted(d) for d in drawn)


def test_nothing_left_or_nothing_asked_finds_nothing():
    assert len(discover([[0.0], [1.0]], [0, 1], 5).indices) == 0
    assert len(discover(LINE, KNOWN, 0).indices) == 0


def test_once_all_near_samples_are_labelled_none_is_found():
    pool = pool_of([[0.0], [1.0], [9.0]], [0, 0, -1])
    pool = replace(pool, given=np.array([True, False, False]))
    near = ConfinedEntropy(delta=0.6, normalise=False)
    assert len(near.discover(pool, 1, np.random.default_rng(0)).indices) == 0


def test_bad_input_is_one_sentence():
    with pytest.raises(DataError, match=r"needs labelled samples to start from; set data\.labels"):
        discover([[0.0]], [-1], 1)
    with pytest.raises(DataError, match="not finite"):
        discover([[0.0], [np.nan]], [0, -1], 1)
    with pytest.raises(DataError, match=r"within delta 0\.5 .* nearest is at 1; raise delta"):
        discover(LINE, KNOWN, 1, delta=0.5)

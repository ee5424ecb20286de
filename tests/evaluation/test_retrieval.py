"""Retrieval scores against brute force, another library, and chance."""

import itertools
import math

import numpy as np
import pytest
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from fewlabels.errors import DataError
from fewlabels.evaluation.retrieval import evaluate_retrieval


def by_enumeration(similarity, query_labels, gallery_labels, own, ks):
    """Means over every order of tied images that a sort could give."""
    totals, counted, lone = {}, 0, 0
    for i, row in enumerate(similarity):
        others = [j for j in range(len(row)) if j != own[i]]
        relevant = sum(gallery_labels[j] == query_labels[i] for j in others)
        if relevant == 0:
            lone += 1
            continue
        counted += 1
        values = sorted({row[j] for j in others}, reverse=True)
        groups = [[j for j in others if row[j] == v] for v in values]
        orders = [
            [j for group in order for j in group]
            for order in itertools.product(*(itertools.permutations(g) for g in groups))
        ]
        for order in orders:
            hits = [gallery_labels[j] == query_labels[i] for j in order]
            one = {f"recall@{k}": any(hits[:k]) for k in ks}
            one["r_precision"] = sum(hits[:relevant]) / relevant
            one["map@r"] = (
                sum(sum(hits[: n + 1]) / (n + 1) for n in range(relevant) if hits[n]) / relevant
            )
            for name, value in one.items():
                totals[name] = totals.get(name, 0.0) + value / len(orders)
    return {**{n: t / counted for n, t in totals.items()}, "queries": counted, "lone": lone}


def assert_same(scores, expected):
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("seed", range(20))
def test_ties_duplicates_and_lone_classes_score_their_expectation(seed):
    rng = np.random.default_rng(seed)
    embeddings = rng.integers(-1, 2, (9, 2)).astype(np.float32) + [[3.0, 0.0]]
    embeddings[5] = embeddings[2]  # a duplicate
    labels = rng.integers(0, 4, 9)
    labels[8] = 77  # alone
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity = np.round(unit @ unit.T, 6)
    scores = evaluate_retrieval(embeddings, labels, ks=(1, 2, 3, 20), nmi=False)
    assert_same(scores, by_enumeration(similarity, labels, labels, np.arange(9), (1, 2, 3, 20)))


@pytest.mark.parametrize("seed", range(10))
def test_query_against_gallery_where_some_images_are_in_both(seed):
    rng = np.random.default_rng(seed)
    everything = rng.integers(-1, 2, (11, 2)).astype(np.float32) + [[2.0, 0.0]]
    truth = rng.integers(0, 3, 11)
    q, g = np.arange(5), np.arange(3, 11)
    unit = everything / np.linalg.norm(everything, axis=1, keepdims=True)
    own = [np.flatnonzero(g == i)[0] if i in g else -1 for i in q]
    scores = evaluate_retrieval(
        everything[q], truth[q], everything[g], truth[g],
        ks=(1, 4), query_rows=q, gallery_rows=g, nmi=False,
    )  # fmt: skip
    similarity = np.round(unit[q] @ unit[g].T, 6)
    assert_same(scores, by_enumeration(similarity, truth[q], truth[g], own, (1, 4)))


def test_scores_without_ties_are_those_of_pytorch_metric_learning():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, 300)
    centres = rng.normal(size=(20, 16))
    embeddings = (centres[labels] + rng.normal(size=(300, 16))).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    theirs = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
    ).get_accuracy(embeddings, labels)
    ours = evaluate_retrieval(embeddings, labels)
    assert ours["recall@1"] == pytest.approx(theirs["precision_at_1"])
    assert ours["r_precision"] == pytest.approx(theirs["r_precision"])
    assert ours["map@r"] == pytest.approx(theirs["mean_average_precision_at_r"])
    assert 0 < ours["nmi"] < 1


@pytest.mark.parametrize("width", [3, 64, 129])
def test_a_constant_embedding_scores_chance(width):
    labels = np.repeat(np.arange(7), [2, 3, 5, 8, 13, 21, 150])
    vector = np.random.default_rng(width).normal(size=width).astype(np.float32)
    scores = evaluate_retrieval(np.tile(vector, (len(labels), 1)), labels, ks=(1, 8), nmi=False)
    n = len(labels)
    others = np.bincount(labels)[labels] - 1
    for k in (1, 8):
        none = [math.comb(n - 1 - p, k) / math.comb(n - 1, k) for p in others]
        assert scores[f"recall@{k}"] == pytest.approx(1 - np.mean(none), abs=1e-9)
    assert scores["r_precision"] == pytest.approx(np.mean(others / (n - 1)))


def test_orthogonal_images_tie_in_whatever_order_they_stand():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(64, 64)))[0][:8]  # cosines of 1e-17 rather than 0
    which, labels = rng.integers(0, 8, 300), rng.integers(0, 30, 300)
    embeddings = basis[which] * rng.uniform(0.5, 3, (300, 1))
    exact = evaluate_retrieval(np.eye(8)[which], labels, ks=(1, 8, 100), nmi=False)
    for order in (np.arange(300), rng.permutation(300)):
        scores = evaluate_retrieval(embeddings[order], labels[order], ks=(1, 8, 100), nmi=False)
        assert scores == pytest.approx(exact, abs=1e-9)


def test_a_group_of_ties_that_reaches_beyond_r_is_counted_in_full():
    embeddings = np.array([[1, 0], *[[1, 1]] * 5, [0, 1], [0, 1]], float)
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 3])
    similarity = np.round([[1.0, *[0.7071] * 5, 0, 0]], 6)
    scores = evaluate_retrieval(
        embeddings[:1], labels[:1], embeddings, labels,
        ks=(1, 3), query_rows=np.arange(1), gallery_rows=np.arange(8), nmi=False,
    )  # fmt: skip
    assert_same(scores, by_enumeration(similarity, labels[:1], labels, [0], (1, 3)))


@pytest.mark.parametrize("k", [1, 5, 60])
def test_recall_is_that_of_a_full_sort_where_no_images_tie(k):
    rng = np.random.default_rng(k)
    labels = np.concatenate([np.repeat([10**12, 7, 5], [2, 90, 40]), np.arange(50, 70)])
    embeddings = rng.normal(size=(len(labels), 6))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -9)
    nearest = labels[similarity.argsort(1)[:, ::-1][:, :k]]
    found = (nearest == labels[:, None]).any(1)[:132]
    scores = evaluate_retrieval(embeddings, labels, ks=(k,), nmi=False)
    assert scores[f"recall@{k}"] == pytest.approx(found.mean())
    assert (scores["queries"], scores["lone"]) == (132, 20)


def test_memory_is_bounded_without_changing_a_score():
    rng = np.random.default_rng(1)
    embeddings, labels = rng.normal(size=(200, 8)), rng.integers(0, 9, 200)
    whole = evaluate_retrieval(embeddings, labels)
    parts = evaluate_retrieval(embeddings, labels, block_bytes=1)
    assert whole == pytest.approx(parts, abs=1e-12)


def test_images_of_unknown_class_are_no_queries_and_never_right():
    embeddings = np.eye(4)[[0, 0, 1, 1, 0]]
    scores = evaluate_retrieval(embeddings, np.array([0, 0, 1, 1, -1]), ks=(1,), nmi=False)
    assert scores["queries"] == 4
    assert scores["lone"] == 0
    assert scores["recall@1"] == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)


def test_a_test_set_where_nothing_can_be_found_is_refused():
    with pytest.raises(DataError, match="none of 4 query images \\(3 of known class\\)"):
        evaluate_retrieval(np.eye(4), np.array([0, 1, 2, -1]))
    with pytest.raises(DataError, match="names an image twice"):
        evaluate_retrieval(
            np.eye(2), np.zeros(2), np.eye(2), np.zeros(2),
            query_rows=np.arange(2), gallery_rows=np.ones(2),
        )  # fmt: skip


def test_embeddings_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="not finite"):
        evaluate_retrieval(np.array([[1.0, np.nan]]), np.array([0]))

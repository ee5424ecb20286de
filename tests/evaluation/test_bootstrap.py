"""The bootstrap by class: its width against theory, pairing, and its file."""

import numpy as np
import pytest

from fewlabels.data.splits import Split
from fewlabels.evaluation import retrieval_protocol
from fewlabels.evaluation.bootstrap import (
    ClassScores,
    average_by_class,
    find_interval,
    find_interval_of_mean,
    read_class_scores,
    write_class_scores,
)
from fewlabels.evaluation.retrieval import evaluate_retrieval


def test_the_interval_is_as_wide_as_that_of_a_mean_of_classes():
    rng = np.random.default_rng(1)
    of_class = rng.normal(0.7, 0.1, 400)
    labels = np.repeat(np.arange(400), 10)
    values = of_class[labels]  # queries of a class answer alike: 400 facts, not 4,000
    low, high = find_interval(average_by_class(values, labels))
    spread = of_class.std() / np.sqrt(400)
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.1)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1 * spread)


def test_classes_of_many_queries_count_as_in_the_mean_over_queries():
    scores = average_by_class(np.array([1.0, 0, 0, 0, 1]), np.array([3, 7, 7, 7, 7]))
    assert scores.classes.tolist() == [3, 7]
    assert scores.queries.tolist() == [1, 4]
    assert scores.scores.tolist() == [1, 0.25]
    assert scores.mean == 2 / 5
    assert find_interval(scores) == (0.25, 1.0)  # two classes: one of them may be drawn twice


def test_one_class_of_queries_has_no_interval():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 6 + [1, 2, 3])  # three classes have nothing to find
    scores = evaluate_retrieval(rng.normal(size=(9, 4)), labels, nmi=False)
    assert scores["queries"] == 6
    assert not [name for name in scores if name.startswith(("low.", "high."))]
    assert find_interval_of_mean([average_by_class(rng.random(6), labels[:6])]) is None


def test_a_difference_that_all_classes_share_is_sure_though_the_classes_differ():
    rng = np.random.default_rng(0)
    queries, base = np.full(40, 20), rng.uniform(0.2, 0.9, 40)
    first = [ClassScores(np.arange(40), queries, base + rng.normal(0, 0.01, 40)) for _ in range(3)]
    second = [one._replace(scores=one.scores + 0.02) for one in first]
    low, high = find_interval_of_mean(second)
    assert high - low > 0.1
    low, high = find_interval_of_mean(second, first)
    assert low == pytest.approx(0.02, abs=1e-9)
    assert high == pytest.approx(0.02, abs=1e-9)
    other = [one._replace(queries=queries + 1) for one in first]
    assert find_interval_of_mean(second, other) is None
    assert find_interval_of_mean([]) is None


def test_scores_by_class_are_those_of_the_evaluation_and_take_no_second_search(monkeypatch):
    rng, rows, searches = np.random.default_rng(0), np.arange(40), []
    search = retrieval_protocol.score_queries

    def count_searches(*given, **more):
        searches.append(more["ks"])
        return search(*given, **more)

    monkeypatch.setattr(retrieval_protocol, "score_queries", count_searches)
    for ks in ((1, 4), (2,)):
        split = Split(rows[:0], rows, rows, None)
        test = retrieval_protocol.RetrievalTest(split, np.repeat(np.arange(8), 5), ks)
        features = rng.normal(size=(40, 4))
        (row,) = test.score_features("trained", features)
        found = test.score_classes(features)
        afresh = test.score_classes(features.copy())
        assert all(np.array_equal(*pair) for pair in zip(found, afresh, strict=True))
        if 1 in ks:
            assert found.mean == pytest.approx(row["recall@1"])
            assert row["queries"] == 40
    assert searches == [(1, 4), (1,), (2,), (1,), (1,)]


def test_scores_by_class_come_back_from_their_file_to_the_last_bit(tmp_path):
    scores = average_by_class(np.random.default_rng(0).random(30), np.arange(30) % 7)
    write_class_scores(tmp_path / "scores.csv", scores)
    back = read_class_scores(tmp_path / "scores.csv")
    for one, two in zip(scores, back, strict=True):
        assert np.array_equal(one, two)
    assert read_class_scores(tmp_path / "nothing.csv") is None
    (tmp_path / "scores.csv").write_text("class,queries,recall@1\n1,2\n")
    assert read_class_scores(tmp_path / "scores.csv") is None


def test_every_measure_of_retrieval_has_an_interval_around_it():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 6)
    features = rng.normal(size=(12, 4))[labels] + rng.normal(size=(72, 4))
    scores = evaluate_retrieval(features, labels, ks=(1, 4), nmi=False)
    for name in ("recall@1", "recall@4", "map@r", "r_precision"):
        assert scores[f"low.{name}"] < scores[name] < scores[f"high.{name}"]
    # As wide as classes drawn by a loop make it.
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    nearness = unit @ unit.T - 9 * np.eye(72)
    hit = labels[nearness.argmax(1)] == labels
    means = []
    for _ in range(4000):
        drawn = rng.integers(12, size=12)
        means.append(np.concatenate([hit[labels == c] for c in drawn]).mean())
    assert scores["recall@1"] == hit.mean()
    assert scores["low.recall@1"] == pytest.approx(np.quantile(means, 0.025), abs=0.02)
    assert scores["high.recall@1"] == pytest.approx(np.quantile(means, 0.975), abs=0.02)

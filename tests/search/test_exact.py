"""Flat search against a full sort by numpy."""

import numpy as np
import pytest

from fewlabels import Index
from fewlabels.search import exact


def by_sorting(vectors, queries, k):
    """Rows by rounded float64 cosine, then by row."""
    unit = [
        v.astype(float) / np.linalg.norm(v.astype(float), axis=1)[:, None]
        for v in (vectors, queries)
    ]
    cosines = np.round(unit[1] @ unit[0].T, 6)
    rows = np.array([np.lexsort((np.arange(len(row)), -row))[:k] for row in cosines])
    return rows, np.take_along_axis(cosines, rows, 1)


@pytest.mark.parametrize("k", [1, 7, 200])
@pytest.mark.parametrize("queries", [1, 30])
def test_found_are_the_nearest_by_a_full_sort(k, queries):
    rng = np.random.default_rng(k)
    vectors, asked = rng.normal(size=(200, 12)), rng.normal(size=(queries, 12))
    rows, scores = by_sorting(vectors, asked, k)
    found = Index.from_embeddings(vectors).search(asked, k)
    assert found.ids == [[str(row) for row in one] for one in rows]
    assert found.scores == pytest.approx(scores, abs=2e-6)
    assert found.scores.dtype == np.float32


@pytest.mark.parametrize("k", [1, 5, 20, 90])
def test_copies_of_an_image_are_found_in_the_order_of_the_index(k):
    rng = np.random.default_rng(k)
    few = rng.normal(size=(6, 33))
    vectors = few[rng.integers(0, 6, 100)]  # each some 16 times, everywhere
    rows, _ = by_sorting(vectors, few, k)
    index = Index.from_embeddings(vectors)
    together = index.search(few, k)
    assert together.ids == [[str(row) for row in one] for one in rows]
    alone = [index.search(query, k).ids[0] for query in few]
    assert alone == together.ids


def test_a_query_scores_the_same_alone_as_among_many():
    rng = np.random.default_rng(0)
    index = Index.from_embeddings(rng.normal(size=(300, 40)))
    queries = rng.normal(size=(50, 40))
    together = index.search(queries, 5)
    for i, query in enumerate(queries):
        alone = index.search(query, 5)
        assert alone.ids[0] == together.ids[i]
        assert np.array_equal(alone.scores[0], together.scores[i])


def test_a_smaller_index_gives_all_it_has():
    found = Index.from_embeddings(np.eye(3), ["a", "b", "c"]).search(np.eye(3)[:2], 10)
    assert found.ids == [["a", "b", "c"], ["b", "a", "c"]]
    assert found.scores.tolist() == [[1, 0, 0], [1, 0, 0]]


def test_lengths_of_embeddings_do_not_matter():
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(60, 8)), rng.normal(size=(4, 8))
    plain = Index.from_embeddings(vectors).search(queries)
    scaled = Index.from_embeddings(vectors * rng.uniform(1e-20, 1e20, (60, 1))).search(queries * 7)
    assert scaled.ids == plain.ids


def test_an_image_without_an_embedding_is_like_nothing():
    index = Index.from_embeddings(np.array([[0.0, 0], [1, 0], [-1, 0]]))
    found = index.search(np.array([1.0, 0]), 3)
    assert found.ids == [["1", "0", "2"]]
    assert found.scores.tolist() == [[1, 0, -1]]


def test_ties_are_complete_however_many_there_are():
    vectors = np.tile(np.float32([[0.6, 0.8]]), (5000, 1))
    rows, scores = exact.search_exact(vectors, vectors[:1], 12)
    assert rows.tolist() == [list(range(12))]
    assert len(np.unique(scores)) == 1

"""Approximate search against exact search."""

import numpy as np
import pytest

import fewlabels.search.index as module
from fewlabels import Index
from fewlabels.errors import DataError


def clusters(count, width=32, seed=0, spread=0.6):
    """Points around 60 centres; the last 100 to ask with."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, width))
    points = centres[rng.integers(0, 60, count + 100)] + spread * rng.normal(
        size=(count + 100, width)
    )
    return points[:count].astype(np.float32), points[count:].astype(np.float32)


def recall(found, truth):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.ids, truth.ids)])


@pytest.fixture(scope="module")
def both():
    vectors, queries = clusters(4000)
    made = {kind: Index.from_embeddings(vectors, kind=kind) for kind in ("flat", "ivf_pq")}
    return made["flat"], made["ivf_pq"], vectors, queries


def test_nearly_all_that_exact_search_finds_is_found_with_its_exact_score(both):
    flat, approximate, _, queries = both
    truth, found = flat.search(queries, 10), approximate.search(queries, 10)
    assert recall(found, truth) > 0.95
    for ids, scores, all_ids, all_scores in zip(found.ids, found.scores, truth.ids, truth.scores):
        exact = dict(zip(all_ids, all_scores))
        assert all(score == exact[name] for name, score in zip(ids, scores) if name in exact)
        assert (np.diff(scores) <= 0).all()


def test_most_of_an_index_is_searched_exactly(both):
    flat, approximate, _, queries = both
    assert approximate.search(queries, 4000).ids == flat.search(queries, 4000).ids


def test_k_images_are_found_even_where_few_are_proposed(both, monkeypatch):
    flat, approximate, _, queries = both
    monkeypatch.setattr(approximate._ivf_pq.engine, "nprobe", 1)
    truth, found = flat.search(queries, 60), approximate.search(queries, 60)
    assert all(len(set(ids)) == 60 for ids in found.ids)
    assert found.scores.shape == truth.scores.shape


def test_an_index_built_twice_finds_the_same(both):
    _, approximate, vectors, queries = both
    again = Index.from_embeddings(vectors, kind="ivf_pq")
    first, second = approximate.search(queries), again.search(queries)
    assert first.ids == second.ids
    assert np.array_equal(first.scores, second.scores)


@pytest.mark.parametrize("width", [1, 7, 130, 261])
def test_any_width_can_be_coded(width):
    vectors, queries = clusters(1300, width)
    index = Index.from_embeddings(vectors, kind="ivf_pq")
    assert recall(index.search(queries), Index.from_embeddings(vectors).search(queries)) > 0.9


def test_added_images_are_found():
    vectors, queries = clusters(2000)
    index = Index.from_embeddings(vectors, kind="ivf_pq")
    index.add(queries, [f"new {i}" for i in range(100)])
    assert [ids[0] for ids in index.search(queries).ids] == [f"new {i}" for i in range(100)]


def test_auto_changes_its_way_when_the_index_gets_large(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 1500)
    vectors, queries = clusters(7000)
    index = Index.from_embeddings(vectors[:1500])
    assert repr(index) == "Index(1500 images, 32 dimensions, flat)"
    index.add(vectors[1500:1600])
    assert repr(index) == "Index(1600 images, 32 dimensions, ivf_pq)"
    few = index._ivf_pq.engine.nlist
    index.add(vectors[1600:])  # more than fourfold: learnt again
    assert index._ivf_pq.engine.nlist > 1.9 * few
    assert recall(index.search(queries), Index.from_embeddings(vectors).search(queries)) > 0.95


def test_too_few_images_to_learn_codes_from_are_refused():
    with pytest.raises(DataError, match=r"at least 1024 images, got 1000; use kind='flat'"):
        Index.from_embeddings(clusters(1000)[0], kind="ivf_pq")

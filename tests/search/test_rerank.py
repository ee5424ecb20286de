"""Query expansion and k-reciprocal re-ranking against plain loops after the papers."""

import math

import numpy as np
import pytest

from fewlabels import Index
from fewlabels.errors import DataError
from fewlabels.search.rerank import expand_query, rerank_neighbours


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def cosine(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b))


@pytest.mark.parametrize("alpha", [0, 1, 2.5, 3])
def test_an_expanded_query_is_the_weighted_sum_of_what_it_found(alpha):
    rng = np.random.default_rng(0)
    query, found = unit(rng.normal(size=5)), unit(rng.normal(size=(9, 5)))
    total = [float(x) for x in query]
    for row in found:
        if cosine(row, query) > 0:
            total = [t + cosine(row, query) ** alpha * x for t, x in zip(total, row)]
    length = math.sqrt(sum(t * t for t in total))
    moved = expand_query(query, found, found @ query, alpha)
    assert moved == pytest.approx([t / length for t in total], abs=1e-6)


def by_the_paper(query, found, k1, k2, blend):
    """Zhong et al. (CVPR 2017), Eqs. 2 to 12, set by set."""
    rows = [query, *found]
    n = len(rows)
    d = [[1 - cosine(a, b) for b in rows] for a in rows]
    order = [sorted(range(n), key=lambda j: (j != i, d[i][j])) for i in range(n)]

    def reciprocal(p, k):
        return {g for g in order[p][: k + 1] if p in order[g][: k + 1]}

    v = []
    for p in range(n):
        members = set(reciprocal(p, k1))
        for q in reciprocal(p, k1):
            theirs = reciprocal(q, round(k1 / 2))
            if len(reciprocal(p, k1) & theirs) >= 2 / 3 * len(theirs):
                members |= theirs
        row = [math.exp(-d[p][g]) if g in members else 0 for g in range(n)]
        v.append([x / sum(row) for x in row])
    mean = [[sum(v[g][j] for g in order[p][:k2]) / min(k2, n) for j in range(n)] for p in range(n)]
    scores = []
    for g in range(1, n):
        least = sum(min(a, b) for a, b in zip(mean[0], mean[g]))
        most = sum(max(a, b) for a, b in zip(mean[0], mean[g]))
        scores.append(1 - ((1 - blend) * (1 - least / most) + blend * d[0][g]))
    return scores


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("k1", "k2", "blend"), [(20, 6, 0.3), (6, 2, 0.0), (5, 1, 0.5), (99, 99, 0.1)]
)
def test_k_reciprocal_scores_are_those_of_the_paper(seed, k1, k2, blend):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, 6))
    rows = unit(centres[rng.integers(0, 5, 41)] + 0.5 * rng.normal(size=(41, 6)))
    query, found = rows[0], rows[1:][np.argsort(-rows[1:] @ rows[0])]
    order, scores = rerank_neighbours(query, found, k1, k2, blend)
    expected = np.array(by_the_paper(query, found, k1, k2, blend))
    assert scores == pytest.approx(expected[order], abs=1e-9)
    assert (np.diff(scores) <= 1e-7).all()
    assert sorted(order) == list(range(40))


def test_with_a_blend_of_one_only_the_cosine_counts():
    rng = np.random.default_rng(0)
    index, queries = Index.from_embeddings(rng.normal(size=(300, 8))), rng.normal(size=(4, 8))
    plain, blended = index.search(queries, 10), index.search(queries, 10, rerank=True, blend=1)
    assert blended.ids == plain.ids
    assert blended.scores == pytest.approx(plain.scores, abs=1e-6)


def test_both_find_more_images_of_the_querys_class():
    rng = np.random.default_rng(0)
    classes = np.arange(640) % 20
    points = rng.normal(size=(20, 32))[classes] + 1.3 * rng.normal(size=(640, 32))
    index = Index.from_embeddings(points[:600])

    def precision(**options):
        found = np.array(index.search(points[600:], 20, **options).ids).astype(int)
        return (classes[found] == classes[600:, None]).mean()

    plain = precision()
    assert precision(expand=5) > plain + 0.03
    assert precision(rerank=True) > plain + 0.06
    assert precision(expand=5, rerank=True) > plain + 0.06


def test_search_with_expansion_is_search_with_the_expanded_query():
    rng = np.random.default_rng(1)
    vectors, query = unit(rng.normal(size=(200, 8))), unit(rng.normal(size=8))
    near = np.argsort(-vectors @ query)[:6]
    moved = expand_query(query, vectors[near], vectors[near] @ query, 3)
    index = Index.from_embeddings(vectors)
    assert index.search(query, expand=6).ids == index.search(moved).ids


def test_copies_keep_their_order_when_re_ranked():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(10, 6))[np.tile(np.arange(10), 4)]
    found = Index.from_embeddings(vectors).search(vectors[:10], 30, rerank=True)
    assert found.scores.shape == (10, 30)
    for ids in found.ids:
        rows = [int(name) for name in ids]
        assert len(set(rows)) == 30
        for digit in range(10):
            same = [row for row in rows if row % 10 == digit]
            assert same == sorted(same)


def test_more_than_the_shortlist_cannot_be_re_ranked():
    index = Index.from_embeddings(np.eye(8))
    assert len(index.search(np.eye(8)[0], 99, rerank=True, shortlist=8).ids[0]) == 8
    with pytest.raises(DataError, match="shortlist=5 cannot be re-ranked to k=6; give at least k"):
        index.search(np.eye(8), 6, rerank=True, shortlist=5)

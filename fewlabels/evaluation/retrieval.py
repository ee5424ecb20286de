"""Retrieval scores in bounded memory, with ties scored by their expectation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fewlabels.errors import DataError
from fewlabels.evaluation.bootstrap import QueryScores
from fewlabels.ops.kmeans import cluster_kmeans


def evaluate_retrieval(
    queries: np.ndarray,
    query_labels: np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: np.ndarray | None = None,
    *,
    ks: Sequence[int] = (1, 2, 4, 8),
    query_rows: np.ndarray | None = None,
    gallery_rows: np.ndarray | None = None,
    block_bytes: int = 2**28,
    device: str | torch.device = "cpu",
    nmi: bool = True,
    seed: int = 0,
) -> dict[str, float]:
    """Recall@K, MAP@R, R-precision and NMI by cosine similarity.

    Args:
        queries and all that are not below: as for :func:`score_queries`.
        gallery: (G, D); None: the queries search one another.
        gallery_labels: (G,) the class of each, -1 unknown.
        nmi: also cluster the gallery into as many clusters as it has classes.

    Returns:
        ``recall@K`` for each K, ``map@r``, ``r_precision``, ``nmi``, ``queries`` (that count) and
        ``lone``; ``low.`` and ``high.`` before the first three are the ends of the interval that
        :mod:`fewlabels.evaluation.bootstrap` finds by drawing classes anew, left out where all
        queries are of one class.

    Raises:
        DataError: as :func:`score_queries`.
    """
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels = queries, query_labels
        query_rows = gallery_rows = np.arange(len(queries))
    found = score_queries(
        queries,
        query_labels,
        gallery,
        gallery_labels,
        ks=ks,
        query_rows=query_rows,
        gallery_rows=gallery_rows,
        block_bytes=block_bytes,
        device=device,
    )
    scores = found.average()
    if nmi:
        scores["nmi"] = measure_nmi(gallery, np.asarray(gallery_labels), seed)
    return scores


@torch.no_grad()
def score_queries(
    queries: np.ndarray,
    query_labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    ks: Sequence[int] = (1, 2, 4, 8),
    query_rows: np.ndarray | None = None,
    gallery_rows: np.ndarray | None = None,
    block_bytes: int = 2**28,
    device: str | torch.device = "cpu",
) -> QueryScores:
    """Recall@K, MAP@R and R-precision of each query by cosine similarity.

    Recall@K is whether an image of a query's class is among its K nearest. A query never retrieves
    itself, told by its row; a duplicate of its image may be retrieved. Equal similarities count as
    their expectation over a random order, in closed form, so a constant embedding scores chance.
    Queries with no other image of their class are left out and counted as ``lone``; queries of
    unknown class (label -1) are left out and not counted. MAP@R and R-precision are those of
    Musgrave et al. (ECCV 2020).

    Args:
        queries: (Q, D).
        query_labels: (Q,) the class of each, -1 unknown.
        gallery: (G, D).
        gallery_labels: (G,) the class of each, -1 unknown.
        ks: K of each Recall@K.
        query_rows: (Q,) numbers of the images; with ``gallery_rows`` (G,), equal ones are the same
            image. Without rows, a gallery shares no image with the queries.
        block_bytes: working memory in bytes, beside the embeddings.
        device: where similarities are computed.

    Returns:
        The scores of each query that counts, ``recall@K``, ``map@r`` and ``r_precision``.

    Raises:
        DataError: embeddings that are not finite, rows that name an image twice, or no query that
            could find anything.
    """
    q, g = (_check_finite(vectors, device) for vectors in (queries, gallery))
    itself = torch.as_tensor(_same_rows(query_rows, gallery_rows, len(q)), device=device)
    own, classes = _group_by_class(query_labels, gallery_labels, device)
    relevant = classes.sizes[own] - (itself >= 0).long()  # R of MAP@R: but for itself
    known = torch.as_tensor(np.asarray(query_labels) >= 0, device=device)
    counted = torch.nonzero(known & (relevant > 0))[:, 0]
    lone = int((known & (relevant == 0)).sum())
    if len(counted) == 0:
        raise DataError(
            f"none of {len(q)} query images ({lone} of known class) has another image of its class "
            "to find; test on classes of at least two images"
        )
    # Queries with like R share a block, so that few positions are ranked in vain.
    counted = counted[relevant[counted].argsort(stable=True)]
    search = _Search(q, g, itself, own, classes, relevant)
    labels = np.asarray(query_labels)[counted.cpu().numpy()]
    return QueryScores(search.score_all(counted, ks, block_bytes), labels, lone)


class _Classes(NamedTuple):
    """The gallery sorted by class: where each class begins, and how many images it has."""

    rows: Tensor
    starts: Tensor
    sizes: Tensor

    def gather_positives(self, distance: Tensor, classes: Tensor) -> Tensor:
        """Of distances (B, G) those to the query's class, sorted, padded by infinity: (B, P)."""
        size = self.sizes[classes, None]
        place = torch.arange(int(size.max()), device=size.device)
        mates = self.rows[(self.starts[classes, None] + place).clamp(max=len(self.rows) - 1)]
        found = distance.gather(1, mates).masked_fill_(place >= size, torch.inf)
        return found.sort(1).values


class _Search(NamedTuple):
    """Queries (Q, D) and a gallery (G, D); for each query its own position in the gallery (-1 if
    it is not there), its class, and how many images it should find."""

    queries: Tensor
    gallery: Tensor
    itself: Tensor
    own: Tensor
    classes: _Classes
    relevant: Tensor

    def score_all(
        self, counted: Tensor, ks: Sequence[int], block_bytes: int
    ) -> dict[str, np.ndarray]:
        """Each measure of the counted queries, block by block."""
        size, width = self.gallery.shape
        columns = min(size, 1 + block_bytes // (32 * width))
        lengths = _measure_lengths(self.gallery, columns)
        most = int(self.classes.sizes[self.own[counted]].max())
        row_bytes = 8 * (size + columns + 2 * width) + 128 * most
        parts: dict[str, list[Tensor]] = {}
        for block in counted.split(1 + (block_bytes // 4 * 3) // row_bytes):
            distance = _measure_distances(
                self.queries[block], self.gallery, lengths, columns
            )  # (B, G)
            itself = self.itself[block]
            there = torch.nonzero(itself >= 0)[:, 0]
            distance[there, itself[there]] = torch.inf
            found = self.classes.gather_positives(distance, self.own[block])
            for name, values in _score_queries(distance, found, self.relevant[block], ks):
                parts.setdefault(name, []).append(values.double())
        return {name: torch.cat(values).cpu().numpy() for name, values in parts.items()}


def _group_by_class(
    query_labels: np.ndarray, gallery_labels: np.ndarray, device: str | torch.device
) -> tuple[Tensor, _Classes]:
    """The class of each query (Q,), from 0, and the gallery by class."""
    numbers = np.concatenate([query_labels, gallery_labels])
    classes = torch.as_tensor(np.unique(numbers, return_inverse=True)[1], device=device)
    of_query, of_gallery = classes.split([len(query_labels), len(gallery_labels)])
    sizes = torch.bincount(of_gallery, minlength=int(classes.max()) + 1)
    by_class = of_gallery.argsort(stable=True)
    return of_query, _Classes(by_class, sizes.cumsum(0) - sizes, sizes)


def measure_nmi(gallery: np.ndarray, labels: np.ndarray, seed: int = 0) -> float:
    """NMI of the known classes (G,) with as many k-means clusters of the gallery (G, D)."""
    from sklearn.metrics import normalized_mutual_info_score  # takes seconds to import

    labelled = labels >= 0
    truth = labels[labelled]
    unit = normalize(_check_finite(gallery, "cpu").float()).numpy()[labelled]
    clusters = cluster_kmeans(unit, len(np.unique(truth)), seed=seed)[1]
    return float(normalized_mutual_info_score(truth, clusters))


def _check_finite(rows: np.ndarray, device: str | torch.device) -> Tensor:
    if not np.isfinite(rows).all():
        raise DataError(
            "embeddings are not finite, so nothing can be retrieved; lower optimizer.lr"
        )
    vectors = torch.as_tensor(np.asarray(rows), device=device)
    return vectors if vectors.is_floating_point() else vectors.float()


def _same_rows(own: np.ndarray | None, others: np.ndarray | None, count: int) -> np.ndarray:
    """Each query's own position in the gallery, -1 if it is not there: (Q,)."""
    if (own is None) != (others is None):
        raise DataError("query_rows and gallery_rows say together who is who; give both or neither")
    if own is None or others is None:
        return np.full(count, -1)
    order = np.argsort(others)
    rows = np.asarray(others)[order]
    if (rows[1:] == rows[:-1]).any():
        raise DataError("gallery_rows names an image twice; give each image once")
    place = np.searchsorted(rows, own).clip(max=len(rows) - 1)
    return np.where(rows[place] == own, order[place], -1)


def _measure_lengths(rows: Tensor, columns: int) -> Tensor:
    parts = [part.double().norm(dim=1) for part in rows.split(columns)]
    return torch.cat(parts).clamp_min_(1e-300)


def _measure_distances(queries: Tensor, gallery: Tensor, lengths: Tensor, columns: int) -> Tensor:
    """Minus the cosine, in steps of 2^-24, as whole numbers in float32: (B, G).

    Equal embeddings must tie wherever they stand in the matrix product, but a product sums in
    another order at its edges. So it is made in float64, whose error is a billionth of a step, and
    rounded. Steps are even over [-1, 1]: rounding to float32 alone would keep the error of a cosine
    near 0, and orthogonal embeddings would not tie.
    """
    left = normalize(queries.double(), eps=1e-300).mul_(-(2**24))
    distance = torch.empty(len(queries), len(gallery), device=queries.device)
    for start in range(0, len(gallery), columns):
        part = slice(start, start + columns)
        product = left @ gallery[part].double().T
        distance[:, part] = product.div_(lengths[part]).round_()
    return distance


def _score_queries(
    distance: Tensor, found: Tensor, relevant: Tensor, ks: Sequence[int]
) -> Iterator[tuple[str, Tensor]]:
    """Each score of each query, from distances (B, G) and those to its positives, sorted (B, P)."""
    # The R nearest rank all that MAP@R looks at, but for a group of ties that reaches beyond R, and
    # the best positive may lie beyond R: the one of both that is farther is counted in full.
    top = distance.topk(int(relevant.max()), 1, largest=False).values
    level = torch.maximum(found[:, :1], top.gather(1, relevant[:, None] - 1))
    mask = torch.empty_like(distance)  # sums of floats are six times as fast as sums of bools
    nearer = torch.lt(distance, level, out=mask).sum(1, keepdim=True)
    equal = torch.eq(distance, level, out=mask).sum(1, keepdim=True)
    # Of each positive: images nearer, those as near (its group), and positives among both.
    above = torch.searchsorted(top, found).double()
    size = torch.searchsorted(top, found, right=True) - above
    above, size = (
        torch.where(found == level, counted.double(), listed)
        for counted, listed in ((nearer, above), (equal, size))
    )
    better = torch.searchsorted(found, found).double()
    tied = torch.searchsorted(found, found, right=True) - better
    for k in ks:
        yield f"recall@{k}", _chance_of_one(tied[:, 0], size[:, 0] - tied[:, 0], k - above[:, 0])

    # A positive stands at each of its group's places, above + 1 .. above + size, with equal chance.
    # At place i, better + 1 + slope * (i - above - 1) positives are expected up to there, so the
    # precision is slope + (better + 1 - slope * (above + 1)) / i, summed over places up to R.
    r = relevant[:, None].double()
    first, last = torch.minimum(above, r), torch.minimum(above + size, r)
    share = torch.where(found.isfinite(), 1 / size.clamp(min=1), 0)
    yield "r_precision", (share * (last - first)).sum(1) / relevant
    slope = (tied - 1) / (size - 1).clamp(min=1)
    harmonic = torch.arange(top.shape[1] + 1, device=top.device).double().reciprocal()
    harmonic[0] = 0
    harmonic = harmonic.cumsum(0)
    inverse = harmonic[last.long()] - harmonic[first.long()]  # sum of 1 / i
    precision = slope * (last - first) + (better + 1 - slope * (above + 1)) * inverse
    yield "map@r", (share * precision).sum(1) / relevant


def _chance_of_one(positives: Tensor, negatives: Tensor, draws: Tensor) -> Tensor:
    """Chance of a positive among m ``draws`` of a shuffled group: 1 - C(n, m) / C(p + n, m)."""
    p, n = positives.double(), negatives.double()
    m = draws.double().clamp(min=0)
    m = torch.minimum(m, p + n)
    enough = m > n
    m = torch.minimum(m, n)
    log_none = (
        torch.lgamma(n + 1) - torch.lgamma(n - m + 1)
        - torch.lgamma(p + n + 1) + torch.lgamma(p + n - m + 1)
    )  # fmt: skip
    # Small cases are exact: with one draw the ratio is n / (p + n), without rounding by lgamma.
    none = torch.where(m == 1, n / (p + n), torch.where(m == 0, 1.0, log_none.exp()))
    return torch.where(enough, 1.0, 1.0 - none)

"""Retrieval scores in bounded memory, with ties scored by their expectation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from fewlabels.clustering import kmeans
from fewlabels.errors import DataError


@torch.no_grad()
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

    Recall@K is the share of queries with an image of their class among their K nearest. A query
    never retrieves itself, known by its row; a duplicate of its image may be retrieved. Equal
    similarities count as their expectation over a random order, in closed form, so a constant
    embedding scores chance. Queries with no other image of their class can find nothing: they are
    left out of the means and counted as ``lone``; so are queries of unknown class (label -1),
    uncounted. MAP@R and R-precision are those of Musgrave et al. (ECCV 2020).

    Args:
        queries: (Q, D).
        gallery: (G, D); None: the queries search one another.
        query_rows: (Q,) numbers of the images; with ``gallery_rows`` (G,), equal ones are the same
            image. Without rows, a gallery shares no image with the queries.
        block_bytes: memory for a block of similarities.
        nmi: also cluster the gallery into as many clusters as it has classes.

    Returns:
        ``recall@K`` for each K, ``map@r``, ``r_precision``, ``nmi``, ``queries`` (that count) and
        ``lone``.

    Raises:
        DataError: embeddings that are not finite.
    """
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels = queries, query_labels
        query_rows = gallery_rows = np.arange(len(queries))
    if query_rows is None or gallery_rows is None:
        query_rows, gallery_rows = np.full(len(queries), -1), np.full(len(gallery), -2)
    q, g = (_unit(rows, device) for rows in (queries, gallery))
    labels, own, others, rows = (
        torch.as_tensor(np.asarray(numbers), device=device)
        for numbers in (query_labels, query_rows, gallery_labels, gallery_rows)
    )

    # Positives of each query, itself not counted: R of MAP@R.
    of_class = torch.bincount(others[others >= 0], minlength=int(labels.max().clamp(min=0)) + 1)
    itself = torch.isin(own, rows)
    relevant = torch.where(labels >= 0, of_class[labels.clamp(min=0)] - itself.long(), 0)
    known = labels >= 0
    counted = torch.nonzero(relevant > 0)[:, 0]
    totals: dict[str, float] = {}
    for block in counted.split(max(1, int(block_bytes / (len(g) * 40)))):
        # In float64 and then rounded, equal embeddings have equal similarities wherever they stand
        # in the matrix product; float32 sums in another order at its edges, and ties would differ.
        similarity = (q[block] @ g.T).float()
        similarity.masked_fill_(own[block, None] == rows, -torch.inf)
        positive = (labels[block, None] == others) & (similarity > -torch.inf)
        for name, values in _scores(similarity, positive, relevant[block], ks):
            totals[name] = totals.get(name, 0.0) + float(values.double().sum())
    count = len(counted)
    scores = {name: total / count for name, total in totals.items()}
    if nmi and count:
        labelled = np.asarray(gallery_labels) >= 0
        truth = np.asarray(gallery_labels)[labelled]
        found = kmeans(g.float().cpu().numpy()[labelled], len(np.unique(truth)), seed=seed)[1]
        scores["nmi"] = float(normalized_mutual_info_score(truth, found))
    return {**scores, "queries": float(count), "lone": float((known & (relevant == 0)).sum())}


def _unit(rows: np.ndarray, device: str | torch.device) -> Tensor:
    if not np.isfinite(rows).all():
        raise DataError(
            "embeddings are not finite, so nothing can be retrieved; lower optimizer.lr"
        )
    vectors = torch.as_tensor(np.asarray(rows), device=device).double()
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _scores(
    similarity: Tensor, positive: Tensor, relevant: Tensor, ks: Sequence[int]
) -> Iterator[tuple[str, Tensor]]:
    """Each score of each query, from similarities (B, G) and which of them are positives."""
    best = similarity.masked_fill(~positive, -torch.inf).amax(1, keepdim=True)
    level = similarity == best
    above = (similarity > best).sum(1)  # negatives all of them
    tied_positive = (level & positive).sum(1)
    tied_negative = level.sum(1) - tied_positive
    for k in ks:
        yield f"recall@{k}", _chance_of_one(tied_positive, tied_negative, k - above)

    # Positions 1..R, best first. Ties that reach beyond R are counted over the whole gallery.
    most = int(relevant.max())
    top, order = similarity.topk(most, 1)
    hit = positive.gather(1, order).double()
    place = torch.arange(most, device=top.device).expand_as(top)
    starts = torch.ones_like(top, dtype=torch.bool)
    starts[:, 1:] = top[:, 1:] != top[:, :-1]
    first = torch.where(starts, place, 0).cummax(1).values  # where the place's group of ties begins
    group = starts.cumsum(1) - 1
    size = torch.zeros_like(hit).scatter_add_(1, group, torch.ones_like(hit))
    good = torch.zeros_like(hit).scatter_add_(1, group, hit)
    last = group[:, -1:]
    edge = similarity == top[:, -1:]
    size.scatter_(1, last, edge.sum(1, keepdim=True).double())
    good.scatter_(1, last, (edge & positive).sum(1, keepdim=True).double())
    before = torch.cat([torch.zeros_like(good[:, :1]), good.cumsum(1)[:, :-1]], 1)
    size, good, before = (x.gather(1, group) for x in (size, good, before))
    within = place < relevant[:, None]
    share = good / size * within  # chance that a place holds a positive
    yield "r_precision", share.sum(1) / relevant
    # Given a positive there, positives among the j - 1 earlier places of its group are expected.
    earlier = (place - first) * ((good - 1) / (size - 1).clamp(min=1)).clamp(min=0)
    yield "map@r", (share * (before + 1 + earlier) / (place + 1)).sum(1) / relevant


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

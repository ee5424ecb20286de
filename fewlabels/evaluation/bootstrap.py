"""How far retrieval scores would move with other classes: a bootstrap that draws whole classes.

Images of a class resemble each other, and many are near copies, so queries are no independent
sample. The spread over training seeds does not see this: all seeds answer the same queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fewlabels.files import new_file, open_regular

RESAMPLES = 2000
CERTAIN = 0.95


class ClassScores(NamedTuple):
    """One measure by class."""

    classes: np.ndarray  # (C,) int64, ascending
    queries: np.ndarray  # (C,) how many queries count
    scores: np.ndarray  # (C,) the mean over them

    @property
    def mean(self) -> float:
        """The mean over all queries."""
        return float((self.queries * self.scores).sum() / self.queries.sum())


class QueryScores(NamedTuple):
    """The scores of each query that counts."""

    scores: dict[str, np.ndarray]  # (Q,) by measure
    labels: np.ndarray  # (Q,) the class of each
    lone: int  # queries of known class that have nothing to find

    def average(self) -> dict[str, float]:
        """The mean of each measure, and the ends of its interval by class, if there are two; also
        how many queries count, and the lone ones."""
        means = {name: float(values.mean()) for name, values in self.scores.items()}
        ends = {"queries": float(len(self.labels)), "lone": float(self.lone)}
        if len(np.unique(self.labels)) < 2:  # the interval of one class would be a point
            return {**means, **ends}
        for name, values in self.scores.items():
            low, high = find_interval(average_by_class(values, self.labels))
            ends |= {f"low.{name}": low, f"high.{name}": high}
        return {**means, **ends}


def average_by_class(values: np.ndarray, labels: np.ndarray) -> ClassScores:
    """The mean by class of a score of queries (Q,), whose classes are ``labels`` (Q,)."""
    classes, place = np.unique(labels, return_inverse=True)
    queries = np.bincount(place)
    return ClassScores(classes, queries, np.bincount(place, weights=values) / queries)


def find_interval(scores: ClassScores) -> tuple[float, float]:
    """Low and high end: where 95 % of the means lie if other classes of this kind were tested.

    Classes are drawn with replacement, each with all of its queries, by a fixed seed.
    """
    return _cut_tails([_resample_means(scores)])


def find_interval_of_mean(
    runs: Sequence[ClassScores], others: Sequence[ClassScores] = ()
) -> tuple[float, float] | None:
    """The interval of the mean over runs (seeds), minus that of ``others``, on the same classes.

    Classes are drawn once for all of them, so what makes a class hard for all cancels out of a
    difference. None where the runs do not have the same queries, or these are of one class.
    """
    first = next(iter(runs), None)
    for scores in (*runs, *others):
        same = first is not None and np.array_equal(scores.classes, first.classes)
        if first is None or not same or not np.array_equal(scores.queries, first.queries):
            return None
    if first is None or len(first.classes) < 2:
        return None
    means = [
        np.mean([_resample_means(scores) for scores in each], axis=0)
        for each in (runs, others)
        if each
    ]
    return _cut_tails(means)


def _resample_means(scores: ClassScores) -> np.ndarray:
    """(RESAMPLES,) means over queries; the same classes are drawn for all with as many classes."""
    totals = np.stack([scores.queries * scores.scores, scores.queries], 1)
    found = np.concatenate([counts @ totals for counts in _draw_classes(len(totals))])
    means: np.ndarray = found[:, 0] / found[:, 1]
    return means


def _draw_classes(count: int) -> Iterator[np.ndarray]:
    """Blocks (100, C) of how often each class is drawn."""
    rng = np.random.default_rng(0)
    for _ in range(RESAMPLES // 100):
        drawn = rng.integers(count, size=(100, count)) + count * np.arange(100)[:, None]
        yield np.bincount(drawn.ravel(), minlength=100 * count).reshape(100, count).astype(float)


def _cut_tails(means: Sequence[np.ndarray]) -> tuple[float, float]:
    """The interval of the first minus the second, where there is one."""
    found = means[0] - means[1] if len(means) == 2 else means[0]
    low, high = np.quantile(found, [(1 - CERTAIN) / 2, (1 + CERTAIN) / 2])
    return float(low), float(high)


HEAD = "class,queries,recall@1"


def write_class_scores(path: Path, scores: ClassScores) -> None:
    """Write Recall@1 by class as CSV with the columns class (its number), queries, recall@1."""
    rows = zip(*(part.tolist() for part in scores), strict=True)
    lines = [HEAD, *(",".join(map(repr, row)) for row in rows)]
    with new_file(path) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_class_scores(path: Path) -> ClassScores | None:
    """What :func:`write_class_scores` wrote; None where there is no such file or it is damaged."""
    try:
        with open_regular(path) as file:
            head, *lines = file.read().decode().splitlines()
        rows = [line.split(",") for line in lines]
        classes, queries = (np.array([int(row[i]) for row in rows], np.int64) for i in (0, 1))
        scores = np.array([float(row[2]) for row in rows])
    except (OSError, ValueError, IndexError):
        return None
    whole = head == HEAD and len(rows) and queries.min() > 0 and np.isfinite(scores).all()
    return ClassScores(classes, queries, scores) if whole else None

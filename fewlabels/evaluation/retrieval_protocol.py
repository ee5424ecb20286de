"""A retrieval test: the query images, the gallery that they search, and a model's scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fewlabels.data.pixels import Pixels, crop_centre
from fewlabels.data.splits import Split
from fewlabels.evaluation.bootstrap import ClassScores, QueryScores, average_by_class
from fewlabels.evaluation.retrieval import measure_nmi, score_queries

Score = dict[str, Any]
EXAMPLES, NEAREST = 6, 7


class Examples(NamedTuple):
    """Some queries and the images nearest to them, as positions in the test's ``rows``."""

    queries: np.ndarray  # (Q,)
    found: np.ndarray  # (Q, K), best first
    cosines: np.ndarray  # (Q, K)


class RetrievalTest:
    """Scores features of the test images.

    Args:
        split: data-set rows; without a gallery the queries search all test images.
        truth: (rows of the data set,) class numbers.
        ks: of Recall@K.
        all_against_all: also search all test images among themselves.

    Attributes:
        unscored: why nothing is scored; None where something is.
    """

    def __init__(
        self, split: Split, truth: np.ndarray, ks: Sequence[int], all_against_all: bool = False
    ) -> None:
        self.rows = split.test
        self.truth, self.ks = truth[self.rows], tuple(ks)
        self.searches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        everything = np.arange(len(self.rows))
        apart = split.gallery is not None or len(split.query) < len(self.rows)
        if apart:
            gallery = (
                everything if split.gallery is None else np.searchsorted(self.rows, split.gallery)
            )
            self.searches["query against gallery"] = (
                np.searchsorted(self.rows, split.query),
                gallery,
            )
        if not apart or all_against_all:
            self.searches["all against all"] = (everything, everything)
        self.scored: tuple[np.ndarray, QueryScores] | None = None  # the last in the first search
        self.unscored = self._explain_unscored()
        if self.unscored:
            self.searches = {}

    def _explain_unscored(self) -> str | None:
        query, gallery = next(iter(self.searches.values()))
        if not (self.truth >= 0).any():
            return "no test images of known classes"
        if not len(self._list_answerable(query, gallery)):
            return "no two test images are known to be of one class, one to look for the other"
        found = self.truth[gallery]
        if len(np.unique(found[found >= 0])) == 1:
            return "all test images to be found are of one class, so any model would find them"
        return None

    def _list_answerable(self, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """Those of ``query`` (Q,) that have another image of their class in ``gallery`` (G,)."""
        found = self.truth[gallery]
        sizes = np.bincount(found[found >= 0], minlength=self.truth.max() + 1)
        known = query[self.truth[query] >= 0]
        answerable: np.ndarray = known[sizes[self.truth[known]] > np.isin(known, gallery)]
        return answerable

    def score_features(self, model: str, features: np.ndarray) -> list[Score]:
        """One row per search, for the features (N, D) of the images ``rows``."""
        result: list[Score] = []
        for name, (query, gallery) in self.searches.items():
            found = self._search(features, query, gallery, self.ks)
            if not result:
                self.scored = features, found
            scores = {**found.average(), "nmi": measure_nmi(features[gallery], self.truth[gallery])}
            result.append({"kind": "evaluation", "model": model, "search": name, **scores})
        return result

    def _search(
        self, features: np.ndarray, query: np.ndarray, gallery: np.ndarray, ks: Sequence[int]
    ) -> QueryScores:
        """The scores of each query, by positions in ``rows``."""
        return score_queries(
            features[query],
            self.truth[query],
            features[gallery],
            self.truth[gallery],
            ks=ks,
            query_rows=query,
            gallery_rows=gallery,
        )

    def score_classes(self, features: np.ndarray) -> ClassScores | None:
        """Recall@1 by class in the first search, of features (N, D) of the images ``rows``.

        The array that ``score_features`` had last is not searched again.
        """
        if not self.searches:
            return None
        if self.scored is not None and self.scored[0] is features and 1 in self.ks:
            found = self.scored[1]
        else:
            found = self._search(features, *next(iter(self.searches.values())), (1,))
        return average_by_class(found.scores["recall@1"], found.labels)

    def find_examples(self, features: np.ndarray) -> Examples:
        """The nearest images of one query of each of a few classes, in the first search.

        Each query has another image of its class in the gallery. Queries are drawn by a fixed seed,
        so they are the same for every model; ``features`` (N, D) decide only what is found.
        """
        query, gallery = next(iter(self.searches.values()))
        rng = np.random.default_rng(0)
        known = self._list_answerable(query, gallery)
        classes = rng.permutation(np.unique(self.truth[known]))[:EXAMPLES]
        chosen = np.array([rng.choice(known[self.truth[known] == c]) for c in classes], np.int64)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
        cosines = unit[chosen] @ unit[gallery].T  # (Q, G)
        cosines[chosen[:, None] == gallery] = -np.inf  # not itself
        others = len(gallery) - int(np.isin(chosen, gallery).any())
        best = (-cosines).argsort(1, kind="stable")[:, : min(NEAREST, others)]
        return Examples(chosen, gallery[best], np.take_along_axis(cosines, best, 1))


def raw_pixels(pixels: Pixels, image_size: int) -> np.ndarray:
    """Evaluation crops as vectors (N, 3 * S * S) in [0, 1]: a baseline without learning."""
    stretches = np.array_split(np.arange(len(pixels)), max(1, len(pixels) // 256))
    rows = [
        crop_centre(pixels.take_rows(part), image_size).flatten(1).numpy() / 255.0
        for part in stretches
    ]
    return np.concatenate(rows).astype(np.float32)

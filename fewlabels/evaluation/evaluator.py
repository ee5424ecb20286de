"""Scores the models of a run where its loop asks for it, and its frozen backbone before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fewlabels.data.pixels import Pixels
from fewlabels.evaluation.scoring import Extract, Row, Scoring


class Frozen(NamedTuple):
    """What a backbone without training gives for the scored images.

    ``model`` is the name in the metrics, ``given`` what :meth:`Scoring.make_rows` takes, and
    ``image_size`` the side in pixels of the images that the backbone saw.
    """

    model: str
    given: np.ndarray
    image_size: int


class Evaluator:
    """Scores the models of a run on one set of images; called in every process.

    Args:
        main: whether this process makes the rows.
        frozen: looks at the images through the backbone as the run begins; it is called once,
            before training, in every process. None, or where it gives None: nothing is said of it.
    """

    def __init__(
        self,
        scoring: Scoring,
        extract: Extract,
        pixels: Pixels,
        main: bool,
        frozen: Callable[[], Frozen | None] | None = None,
    ) -> None:
        self.scoring, self.extract, self.pixels, self.main = scoring, extract, pixels, main
        self.frozen = frozen

    def score_models(self, when: str, discoveries: int) -> list[Row]:
        """Rows of the kind "evaluation", ``when`` being "before" or "trained"."""
        given = self.scoring.run_models(when, discoveries, self.extract)
        rows = self.scoring.make_rows(given, when, self.pixels) if self.main else []
        if when == "before" and self.frozen is not None:
            rows += self._score_frozen(self.frozen())
        return rows

    def _score_frozen(self, found: Frozen | None) -> list[Row]:
        if found is None or not self.main:
            return []
        rows = self.scoring.make_rows({found.model: found.given}, "frozen", self.pixels)
        return [{**row, "image_size": found.image_size} for row in rows]

    def describe_row(self, row: Row) -> str:
        """A row as text."""
        return self.scoring.describe_row(row)

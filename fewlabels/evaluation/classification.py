"""Classification: the error of a model on the test images, and by which rule a run reports it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fewlabels.errors import DataError

Rule = Literal["last", "median", "best"]
MEDIAN_OF = 20
"""Checkpoints of the ``median`` rule (MixMatch)."""


def error_rate(scores: np.ndarray, truth: np.ndarray) -> float:
    """The share of samples whose true class does not have the highest score.

    Ties are scored by their expectation over a random choice among the highest, so a constant
    model has the error of chance.

    Args:
        scores: (N, C) logits or probabilities.
        truth: (N,) classes; samples with -1 (unknown) are left out.

    Raises:
        DataError: scores that are not finite, or no known truth.
    """
    known = truth >= 0
    if not known.any():
        raise DataError("no test image has a known class, so no error can be given")
    scores, truth = scores[known], truth[known]
    if not np.isfinite(scores).all():
        raise DataError("scores of the test images are not finite; lower optimizer.lr")
    highest = scores == scores.max(1, keepdims=True)
    right = highest[np.arange(len(truth)), truth] / highest.sum(1)
    return float(1 - right.mean())


def summarize_error(rows: Sequence[dict[str, Any]], model: str, rule: Rule) -> dict[str, Any]:
    """A run's error for one model: ``{"error", "rule", "step", "checkpoints"}``.

    If images were held out, ``validation`` is their error by the same rule. If there are no test
    images, ``error`` is missing.

    ``last``: of the last evaluation. ``median``: the median over the last 20, or over as many as
    ``checkpoints`` says. ``best``: of the evaluation with the smallest validation error, the
    earliest if several are equal; test errors are never used to choose.

    Args:
        rows: evaluations in order, each with model, step, error, and validation_error where images
            were held out; of several at one step, the last counts. What was scored before training
            has no step.
    """
    own = list({row.get("step"): row for row in rows if row["model"] == model}.values())
    if not own:
        raise DataError(f"model {model!r} was never evaluated")
    if rule == "best":
        if any(row.get("validation_error") is None for row in own):
            raise DataError("evaluation.report: best needs a validation split; set data.validation")
        own = [min(own, key=lambda row: row["validation_error"])]
    else:
        own = own[-MEDIAN_OF:] if rule == "median" else own[-1:]
    found = {"rule": rule, "step": own[-1].get("step"), "checkpoints": len(own)}
    for key, column in (("error", "error"), ("validation", "validation_error")):
        if all(row.get(column) is not None for row in own):
            found[key] = statistics.median(row[column] for row in own)
    return found

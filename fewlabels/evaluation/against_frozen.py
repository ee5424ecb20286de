"""A trained model against its own backbone without training, on the same test images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
OWN, LDA = "frozen_own", "frozen_lda"
"""The frozen backbone in the metrics: with its own evaluation transform, and LDA on that."""
NAMES = {LDA: "LDA on the frozen backbone", OWN: "frozen backbone"}
CERTAIN = 1.96
"""Standard errors in a 95 % interval of the normal distribution."""


def name_model(model: str, image_size: int | None = None) -> str:
    """A frozen model of the metrics in words, with the size of its images where that is known."""
    return NAMES[model] + (f", {image_size} px" if image_size else "")


def choose_frozen(rows: Sequence[Row], search: str) -> Row:
    """What the last row of an embedder's metrics says of the better one of its frozen backbones.

    Args:
        rows: the scores of a run.
        search: the one whose Recall@1 is the run's number.
    """
    own = [row for row in rows if row["model"] in ("frozen", OWN) and row["search"] == search]
    if not own:
        return {}
    best = max(own, key=lambda row: row["recall@1"])
    return {**_describe_frozen(best, best["recall@1"]), "tested": int(best["queries"])}


def report_lda(rows: Sequence[Row], tested: int) -> Row:
    """What the last row of a classifier's metrics says of LDA on the frozen backbone.

    Args:
        rows: the scores of a run.
        tested: test images.
    """
    own = [row for row in rows if row["model"] == LDA]
    if not own:
        return {}
    told = _describe_frozen(own[-1], own[-1].get("error"))
    if "validation_error" in own[-1]:
        told["frozen_validation"] = own[-1]["validation_error"]
    return {**{k: v for k, v in told.items() if v is not None}, "tested": tested}


def _describe_frozen(row: Row, score: float | None) -> Row:
    told = {"frozen": score, "frozen_model": row["model"]}
    return told | ({"frozen_size": row["image_size"]} if "image_size" in row else {})


def describe_loss(ends: Sequence[Row]) -> str | None:
    """A sentence where training has made things worse; None where it has not, or nobody knows.

    Two numbers are compared as they are; whether chance can have made the difference is judged as
    if each model had seen test images of its own, which is careful, since they saw the same.

    Args:
        ends: the last rows of runs that differ in their seed alone; their means are compared.
    """
    if not ends or not all("frozen" in end and math.isfinite(end["score"]) for end in ends):
        return None
    score, frozen = (statistics.mean(end[key] for end in ends) for key in ("score", "frozen"))
    falls = ends[0]["measure"] == "test error"
    lost = score - frozen if falls else frozen - score
    if lost <= 0:
        return None
    tested = min(end["tested"] for end in ends)
    spread = sum(share * (1 - share) for share in (score, frozen)) / max(1, tested)
    certain = lost > CERTAIN * math.sqrt(spread)
    numbers = [f"{100 * value:.{2 if falls else 1}f} %" for value in (score, frozen)]
    who = f"{NAMES[LDA]} with the same labels" if falls else f"the {NAMES[OWN]}"
    at = f" ({ends[0]['frozen_size']} px)" if ends[0].get("frozen_size") else ""
    mean = f" (means of {len(ends)} seeds)" if len(ends) > 1 else ""
    said = f"{ends[0]['measure']} {numbers[0]} against {numbers[1]} of {who}{at}{mean}"
    if certain:
        return f"training lost: {said}"
    what = "test images" if falls else "queries"
    return f"training did not win: {said}, which {tested:,} {what} do not tell apart"

"""When discovery happens and how steps are carried out; where a run stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Plan:
    """When discovery happens, how much it may label, and how steps are carried out."""

    rounds: int = 1
    epochs_per_round: int = 1
    steps_per_epoch: int | None = None
    discover_every: int = 1
    growth: Literal["all", "double", "fixed"] = "all"
    limit: float | None = None
    accumulate: int = 1
    clip: float | None = None
    channels_last: bool = True
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    log_every: int = 10
    evaluate_every: int = 1
    batch_norm: str = "train"

    def budget(self, labels: np.ndarray, given: np.ndarray) -> int:
        """How many samples a discovery may label now (Eq. 2.1 for ``double``)."""
        labelled, start = int((labels >= 0).sum()), int(given.sum())
        room = len(labels) - labelled
        if self.limit is not None:
            room = min(room, int(self.limit * start) - labelled)
        wanted = {"all": len(labels), "double": labelled, "fixed": start}[self.growth]
        return max(
            0, len(labels) if self.growth == "all" and self.limit is None else min(wanted, room)
        )


@dataclass
class Position:
    """What the loop does next; saved with every checkpoint."""

    round: int = 0
    phase: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0  # optimiser steps so far
    discoveries: int = 0

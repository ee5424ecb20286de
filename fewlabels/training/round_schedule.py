"""When discovery happens and how steps are carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class RoundSchedule:
    """When discovery happens, how much it may label, and how steps are carried out.

    ``first`` is a number of rounds on the given labels alone, before the first generation.
    """

    generations: int = 1
    rounds: int = 1
    first: int = 0
    epochs_per_round: int = 1
    first_epochs: int | None = None
    restart: Literal["never", "generation", "round"] = "never"
    stop: float | None = None
    oracle: bool = False
    steps_per_epoch: int | None = None
    discover_every: int = 1
    growth: Literal["double", "fixed", "even", "all"] = "double"
    limit: float | None = None
    accumulate: int = 1
    clip: float | None = None
    channels_last: bool = True
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    log_every: int = 10
    evaluate_every: int = 1
    evaluate_steps: int = 0
    keep_best: bool = False
    freeze_batchnorm: Literal["none", "statistics", "all"] = "none"

    @property
    def total(self) -> int:
        """Rounds of the whole run."""
        return self.first + self.generations * self.rounds

    def find_generation(self, index: int) -> tuple[int, int]:
        """The generation of a round, and the round's number in it; (0, -1) before the first."""
        after = index - self.first
        return divmod(after, self.rounds) if after >= 0 else (0, -1)

    def count_epochs(self, index: int) -> int:
        """Epochs of a round."""
        given = index < self.first and self.first_epochs is not None
        return self.first_epochs or 1 if given else self.epochs_per_round

    def begins_with_discovery(self, index: int) -> bool:
        """Whether a discovery opens a round."""
        return index >= self.first and self.find_generation(index)[1] % self.discover_every == 0

    def ends_with_evaluation(self, index: int) -> bool:
        """Whether a round ends with an evaluation."""
        every, last = self.evaluate_every, index + 1 == self.total
        return last or bool(self.stop) or bool(every and (index + 1) % every == 0)

    def drops_discovered_labels(self, index: int) -> bool:
        """Whether a round goes back to the given labels: the first of each later generation."""
        generation, number = self.find_generation(index)
        return generation > 0 and number == 0

    def resets_weights(self, index: int) -> bool:
        """Whether a round begins with the initial weights."""
        return {
            "never": False,
            "generation": self.drops_discovered_labels(index),
            "round": index > 0,
        }[self.restart]

    def epochs_between_restarts(self, index: int) -> tuple[int, int]:
        """Epochs from the last restart to this round, and from that restart to the next one."""
        begins = [i for i in range(self.total) if i == 0 or self.resets_weights(i)]
        begin = max(i for i in begins if i <= index)
        end = min([i for i in begins if i > index], default=self.total)
        before = sum(self.count_epochs(i) for i in range(begin, index))
        return before, before + sum(self.count_epochs(i) for i in range(index, end))

    def label_budget(self, labels: np.ndarray, given: np.ndarray) -> int:
        """How many samples a discovery may label now (Eq. 2.1 for ``double``)."""
        labelled, start = int((labels >= 0).sum()), int(given.sum())
        if labelled == 0:  # nobody's labels could grow
            return len(labels)
        room = len(labels) - labelled
        if self.limit is not None:
            room = min(room, int(self.limit * start) - labelled)
        discoveries = -(-self.rounds // self.discover_every)  # of a generation
        wanted = {
            "all": len(labels),
            "double": labelled,
            "fixed": start,
            "even": -(-(len(labels) - start) // discoveries),
        }[self.growth]
        return max(
            0, len(labels) if self.growth == "all" and self.limit is None else min(wanted, room)
        )

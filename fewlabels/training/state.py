"""The state of a run besides its weights; it is saved with every checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from fewlabels.contracts import LabelState, Pairs
from fewlabels.errors import FewLabelsError

Arrays = dict[str, np.ndarray]


@dataclass
class Progress:
    """The position of a run: what the loop does next."""

    round: int = 0
    phase: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0  # optimiser steps so far
    steps: dict[str, int] = field(default_factory=dict)  # the same, by the name of the phase
    images: dict[str, int] = field(default_factory=dict)  # of unlabelled streams, seen by them
    restarted: dict[str, int] = field(default_factory=dict)  # steps when weights last began again
    discoveries: int = 0  # that found anything
    begun: list[str] = field(default_factory=list)  # averages that started at a discovery
    validation: float | None = None  # error of the deployed model after the round before
    best: float | None = None  # the smallest so far

    def steps_since_restart(self, phase: str) -> int:
        """Optimiser steps of phases of this name since weights last restarted."""
        return self.steps.get(phase, 0) - self.restarted.get(phase, 0)


@dataclass
class State:
    """Progress, labels, and the features that discoveries remember.

    ``history`` holds, by model, the features (N, D) at the discoveries before, newest first.
    """

    label_state: LabelState
    progress: Progress = field(default_factory=Progress)
    history: dict[str, tuple[np.ndarray, ...]] = field(default_factory=dict)

    @classmethod
    def of_given(cls, labels: np.ndarray) -> State:
        """The state in which a run begins: the labels (N,) that people gave, -1 for none."""
        return cls(LabelState(labels, labels, labels >= 0, None, None, changed=False))

    @property
    def labels(self) -> np.ndarray:
        """(N,) present labels, -1 = unlabelled."""
        return self.label_state.labels

    def drop_discovered_labels(self) -> None:
        """Keep only the labels that people gave, in the present and the previous labels."""
        known = self.label_state
        labels = np.where(known.given, known.labels, -1)
        self.label_state = LabelState(labels, labels, known.given, known.centres, known.pairs, True)

    def save(self) -> tuple[Arrays, dict[str, Any]]:
        """The state as arrays by name, and as values that JSON can hold."""
        arrays = {"labels": self.label_state.labels, "earlier": self.label_state.previous}
        for name in ("centres", "weights", "previous_weights"):
            value = getattr(self.label_state, name)
            if value is not None:
                arrays[name] = value
        if self.label_state.pairs is not None:
            arrays |= {f"pairs.{k}": v for k, v in flatten_pairs(self.label_state.pairs).items()}
        for model, past in self.history.items():
            arrays |= {f"history.{i}.{model}": features for i, features in enumerate(past)}
        return arrays, {"at": asdict(self.progress), "fresh": self.label_state.changed}

    def load(self, arrays: Arrays, values: dict[str, Any]) -> None:
        """Restore what :meth:`save` gave; the labels given by people stay those of this state.

        Raises:
            FewLabelsError: the values are of another version, or of other images.
        """
        try:
            progress = Progress(**values["at"])
            labels, previous, changed = arrays["labels"], arrays["earlier"], values["fresh"]
        except (TypeError, KeyError) as error:
            raise FewLabelsError(
                "the checkpoint is of another version of fewlabels; start a new run"
            ) from error
        if len(labels) != len(self.labels):
            raise FewLabelsError(
                f"the checkpoint is of {len(labels)} training images, and there are "
                f"{len(self.labels)} now; put them back as they were, or start a new run"
            )
        pairs = gather_pairs({k[6:]: v for k, v in arrays.items() if k.startswith("pairs.")})
        given, centres = self.label_state.given, arrays.get("centres")
        self.progress = progress
        weights = (arrays.get("weights"), arrays.get("previous_weights"))
        self.label_state = LabelState(labels, previous, given, centres, pairs, changed, *weights)
        self.history = {}
        for key in sorted(k for k in arrays if k.startswith("history.")):
            model = key.split(".", 2)[2]
            self.history[model] = (*self.history.get(model, ()), arrays[key])


def flatten_pairs(pairs: Pairs) -> Arrays:
    """Pairs as arrays: the points of all pairs concatenated, and how many each pair has."""
    arrays = {f.name: getattr(pairs, f.name) for f in fields(pairs) if f.name != "points"}
    arrays["counts"] = np.array([len(points) for points in pairs.points], np.int64)
    arrays["points"] = np.concatenate([np.empty((0, 4), np.float32), *pairs.points])
    return arrays


def gather_pairs(arrays: Arrays) -> Pairs | None:
    """The inverse of :func:`flatten_pairs`; None if there are no arrays."""
    if not arrays:
        return None
    ends = arrays["counts"].cumsum()[:-1]
    points = tuple(np.split(arrays["points"], ends)) if len(arrays["counts"]) else ()
    return Pairs(
        **{k: v for k, v in arrays.items() if k not in ("counts", "points")}, points=points
    )

"""What a strategy declares for the loop to train, and what the loop passes to it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Protocol

import numpy as np
from annotated_types import Ge, Le

from fewlabels.contracts.data import Batch, ViewComponent, ViewFunction
from fewlabels.contracts.discovery import Pairs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fewlabels.contracts.ramp import Ramp

LARGEST_COUNT = 10_000_000
Count = Annotated[int, Ge(1), Le(LARGEST_COUNT)]
"""An option of a strategy: images a step, or entries of a memory."""


@dataclass(frozen=True)
class Round:
    """The position of a run, given to a strategy when it is asked for its phases."""

    index: int
    generation: int
    epochs: int
    discoveries: int  # how many discoveries have found anything, this round's included


Of = Literal["labelled", "unlabelled", "all", "pairs"]


@dataclass(frozen=True)
class Stream:
    """Which samples a phase sees, how many per step, and through which views.

    Streams of ``unlabelled`` and of ``all`` images hide their labels: all are -1. ``lag`` 1 uses
    the labels of one discovery ago (Eq. 3.13). ``per_class`` > 0 makes class-balanced batches.
    """

    of: Of
    batch: int
    views: tuple[ViewFunction, ...]
    per_class: int = 0
    lag: Literal[0, 1] = 0


@dataclass(frozen=True)
class Average:
    """A moving average of a module, updated after each step in the order of declaration.

    The average and its source are modules, or parts of one given by path (``master.decision``). One
    that starts at the first discovery is copied from its source then, and not updated before.
    """

    of: str
    decay: Ramp
    buffers: Literal["copy", "own"] = "copy"
    starts: Literal["now", "first_discovery"] = "now"


@dataclass(frozen=True)
class Phase:
    """One stretch of training: ``epochs`` or ``steps``.

    An epoch is one pass over ``epoch_of``, which need not be among ``streams``; None means the
    first of ``streams``. One that ``renews`` has its weights set anew by ``begin`` each time, so
    its optimiser and its clock begin anew too.
    """

    name: str
    trains: tuple[str, ...]
    streams: Mapping[str, Stream]
    averages: Mapping[str, Average] = field(default_factory=dict)
    epochs: int | None = None
    steps: int | None = None
    epoch_of: Stream | None = None
    renews: bool = False


@dataclass(frozen=True)
class Clock:
    """The time of one step; ``step`` counts those of the phase's name since weights restarted."""

    round: int
    epoch: int
    step: int


class Build(Protocol):
    """What a strategy may ask for when it makes its modules."""

    size: int  # training images; Part.indices are below this
    classes: int | None  # labels that the losses must tell apart

    embedding_size: int

    @property
    def view(self) -> ViewFunction:
        """The recipe's views, one after the other."""

    def view_with(self, *more: ViewComponent) -> ViewFunction:
        """The recipe's views and then ``more``, as one function: a stronger view than ``view``."""

    def embedder(self) -> nn.Module: ...

    def classifier(self) -> nn.Module: ...

    def losses(self) -> dict[str, nn.Module]: ...


class Models(Protocol):
    """The modules of a run inside a training step."""

    def __getitem__(self, name: str) -> nn.Module: ...

    def plain(self, name: str) -> nn.Module:
        """The module without its wrapper for multi-process training."""

    def freeze_statistics(self, name: str) -> AbstractContextManager[None]:
        """Context manager: within it, batch-norm running statistics are not updated."""

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in rank order; gradients flow to a process's own rows."""

    def average_buffers(self) -> None:
        """Average batch-norm running statistics over all processes; each calls it."""


class Extract(Protocol):
    """Evaluation-mode outputs of the training images, (N, D) float32, the same in every process.

    ``rows`` are the positions (M,) of the wanted images; None means all.
    """

    def __call__(
        self,
        model: str,
        what: Literal["embedding", "features", "logits"] = "embedding",
        rows: np.ndarray | None = None,
    ) -> np.ndarray: ...


class Strategy(Protocol):
    """How a run trains.

    Attributes:
        deploys: the module that is evaluated first and saved.
        task: what it makes of an image: an embedding for retrieval, or class scores. A ``pretext``
            task pretrains another run's backbone (``pretrain:``): it trains a module called
            student for ``epochs``, and is not evaluated.
        weights: of loss terms for which the recipe gives none; terms in neither have weight 1.

    One may say by ``weighs_labels`` whether its losses count a label by its weight
    (``Part.weights``); see :func:`fewlabels.contracts.weighs_labels`.
    """

    deploys: str
    task: Literal["retrieval", "classification", "pretext"]
    weights: Mapping[str, Ramp]

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """All modules with weights or buffers, by name. Called again after pretraining, to get
        the same modules with their new starting weights."""

    def seen_through(self, model: str, discoveries: int) -> str:
        """The module to use in place of ``model`` after so many discoveries that found anything."""

    def start(self, models: Models, extract: Extract) -> None:
        """Called once, before the first discovery, to initialise what depends on the data."""

    def phases(self, round: Round) -> list[Phase]: ...

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None: ...

    def losses(
        self, phase: Phase, models: Models, batch: Batch, clock: Clock
    ) -> dict[str, Tensor]: ...


class LabelState(NamedTuple):
    """The labels that a phase trains on; the same in all processes."""

    labels: np.ndarray  # (N,) int64 by position in the training set, -1 = unlabelled
    previous: np.ndarray  # (N,) those of one discovery ago, for streams that lag
    given: np.ndarray  # (N,) bool, labelled by a person
    centres: np.ndarray | None  # (K, D) of the last discovery
    pairs: Pairs | None
    changed: bool  # whether labels changed since the phase before
    weights: np.ndarray | None = None  # (N,) float32 in [0, 1] of labels; None: each is 1
    previous_weights: np.ndarray | None = None  # (N,) of previous; given labels have 1 in both

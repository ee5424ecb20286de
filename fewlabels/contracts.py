"""What passes between components, and the Protocols that a plugin author implements.

Floor 0: numpy alone at run time; torch is named for type checkers only. N is the number of samples
in a pool, M of those discovered, P of pairs, B of a batch, D a feature's width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from fewlabels.ramps import Ramp

API_VERSION = 1
"""Raised when a contract below changes in a way that breaks a plugin."""

# ---------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Records:
    """What a source gives: N images, decoded on access, with what is known about them.

    Attributes:
        images: item i is image i, an RGB PIL image; it is decoded each time it is asked for.
        truth: (N,) int64 class numbers into ``classes``; -1 where unknown. Read by evaluation and
            reports, and by training only for samples whose label a person has given.
        classes: names of the classes.
        columns: further facts, each (N,). ``split`` holds the official split ("train", "test",
            or "train", "query", "gallery") where there is one.
        names: (N,) a name for each image that a person would recognise: a file name, a row number.
    """

    images: Sequence[Image]
    truth: np.ndarray
    classes: tuple[str, ...]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.truth)


class Source(Protocol):
    """A place where images come from. ``default_split`` is the recipe's ``data.split`` if unset."""

    default_split: Literal["official", "zero_shot", "all"]

    def load(self) -> Records: ...


class View(NamedTuple):
    """One view of a batch: ``matrix`` maps the source image to it, both in [-1, 1]."""

    images: Tensor  # (B, C, H, W) float32 in [0, 1]
    matrix: Tensor  # (B, 3, 3) float32, source -> view, align_corners=False


class ViewFunction(Protocol):
    """Makes one view of each image, drawing from a CPU generator alone.

    Draws are made for the ``count`` images of the global batch, of which ``images`` are ``rows``;
    so they do not depend on the device or on the number of processes.
    """

    def __call__(
        self,
        images: Tensor,  # (B, C, H, W) uint8
        generator: torch.Generator,
        rows: slice | None = None,
        count: int | None = None,
    ) -> View: ...


class Part(NamedTuple):
    """This process's rows of one stream in a batch."""

    indices: Tensor  # (B,) int64 positions in the training set
    labels: Tensor  # (B,) int64, -1 = unlabelled
    views: list[View]


Batch = Mapping[str, Part]

# ---------------------------------------------------------------------------- discovery


@dataclass(frozen=True)
class Needs:
    """What a discovery looks at; the loop computes only this."""

    model: str = "student"
    history: int = 0
    probabilities: bool = False
    images: bool = False


@dataclass(frozen=True)
class Pairs:
    """Matched sub-images: boxes are xyxy in [0, 1], the affine map is left -> right in [-1, 1]."""

    left: np.ndarray  # (P,) positions in the pool
    right: np.ndarray  # (P,)
    left_box: np.ndarray  # (P, 4)
    right_box: np.ndarray  # (P, 4)
    affine: np.ndarray  # (P, 2, 3)
    points: tuple[np.ndarray, ...]  # P arrays (n, 4): x, y in left, x, y in right, all in [-1, 1]
    scores: np.ndarray  # (P,) larger = surer


@dataclass(frozen=True)
class Discovered:
    """Labels found for M samples of a pool of N."""

    indices: np.ndarray  # (M,) int64 positions in the pool
    labels: np.ndarray  # (M,) int64
    scores: np.ndarray  # (M,) float32, larger = surer
    centres: np.ndarray | None = None  # (K, D) float32
    pairs: Pairs | None = None
    merge: Literal["add", "replace"] = "add"


@dataclass(frozen=True)
class Pool:
    """What a discovery may look at."""

    rows: np.ndarray  # (N,) int64 data-set indices
    features: np.ndarray  # (N, D) float32
    labels: np.ndarray  # (N,) int64, -1 = unlabelled
    given: np.ndarray  # (N,) bool, labelled by a person
    classes: int | None = None
    probabilities: np.ndarray | None = None  # (N, C) float64
    images: Sequence[Image] | None = None
    history: tuple[np.ndarray, ...] = ()  # (N, D) each, newest first
    found: Discovered | None = None  # by the discovery before this one in the recipe's list


class Discovery(Protocol):
    """Finds labels (or pairs) for unlabelled samples; runs in the main process only.

    ``classes`` says how many labels it gives, None when they are the pool's. A discovery that
    keeps something between rounds also has ``state_dict() -> dict[str, ndarray]`` and
    ``load_state_dict``.
    """

    classes: int | None

    def needs(self) -> Needs: ...

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered: ...


# ---------------------------------------------------------------------------- models and losses


class Output(NamedTuple):
    """What every model's forward returns."""

    features: Tensor  # (B, F) pooled, before the last linear layer
    embedding: Tensor | None = None  # (B, D), L2-normalised
    logits: Tensor | None = None  # (B, C)
    logits2: Tensor | None = None  # (B, C) of a second head
    side: dict[str, Tensor] = {}


class Memory(NamedTuple):
    """A memory of past embeddings, as a loss sees it: M filled entries."""

    embeddings: Tensor  # (M, D), detached
    labels: Tensor  # (M,)
    indices: Tensor  # (M,) positions in the training set
    writer: Tensor  # (M,) row of the present global batch that wrote the entry, -1 for older ones


LOSS_INPUTS = (
    "embeddings",
    "labels",
    "indices",
    "memory",
    "centres",
    "embeddings_pair",
    "attention",
    "attention_pair",
    "matrix",
    "valid",
    "logits",
    "side",
)
"""The names that a loss's forward may use for its positional parameters: they say what it gets."""

_side: ContextVar[dict[str, Any] | None] = ContextVar("side", default=None)


def write_side(name: str, value: Tensor) -> None:
    """Hand a tensor to the running forward, from inside a block; a no-op outside one."""
    running = _side.get()
    if running is not None:
        running[name] = value


@contextmanager
def collect_side() -> Iterator[dict[str, Any]]:
    """The dict that blocks write to while the body runs; a model's forward opens it."""
    written: dict[str, Any] = {}
    token = _side.set(written)
    try:
        yield written
    finally:
        _side.reset(token)


# ---------------------------------------------------------------------------- strategies


@dataclass(frozen=True)
class Round:
    """Where a run stands when a strategy is asked for its phases."""

    index: int
    generation: int
    epochs: int
    discoveries: int  # how many discoveries have found anything, this round's included


@dataclass(frozen=True)
class Stream:
    """Which samples a phase sees, how many a step, and through which views.

    ``lag`` 1 takes the labels of one discovery ago (Eq. 3.13); ``per_class`` > 0 makes
    class-balanced batches.
    """

    of: Literal["labelled", "unlabelled", "all", "pairs"]
    batch: int
    views: tuple[ViewFunction, ...]
    per_class: int = 0
    lag: Literal[0, 1] = 0


@dataclass(frozen=True)
class Average:
    """A moving average of a module, updated after each step in the order of declaration.

    It and its source are modules, or parts of one by their path (``master.decision``). One that
    starts at the first discovery is a copy of its source then, and does not move before.
    """

    of: str
    decay: Ramp
    buffers: Literal["copy", "own"] = "copy"
    starts: Literal["now", "first_discovery"] = "now"


@dataclass(frozen=True)
class Phase:
    """One stretch of training: ``epochs`` or ``steps``.

    An epoch is one pass over ``epoch_of``, whose images need not be looked at; None is the first of
    ``streams``.
    """

    name: str
    trains: tuple[str, ...]
    streams: Mapping[str, Stream]
    averages: Mapping[str, Average] = field(default_factory=dict)
    epochs: int | None = None
    steps: int | None = None
    epoch_of: Stream | None = None


@dataclass(frozen=True)
class Clock:
    """The time of one training step; ``step`` counts those of all phases of its name in the run."""

    round: int
    epoch: int
    step: int


class Build(Protocol):
    """What a strategy may ask for when it makes its modules."""

    view: ViewFunction  # the recipe's views, one after the other
    size: int  # training images; Part.indices are below this
    classes: int | None  # labels that the losses must tell apart

    embedding_size: int

    def embedder(self) -> nn.Module: ...

    def classifier(self) -> nn.Module: ...

    def losses(self) -> dict[str, nn.Module]: ...


class Models(Protocol):
    """The modules of a run inside a training step."""

    def __getitem__(self, name: str) -> nn.Module: ...

    def plain(self, name: str) -> nn.Module:
        """The module without its wrapping for many processes."""

    def still(self, name: str) -> AbstractContextManager[None]:
        """While open, running statistics do not move."""

    def gather(self, rows: Tensor) -> Tensor:
        """The global batch's rows in rank order, each process keeping the gradient of its own."""


class Extract(Protocol):
    """Evaluation-mode outputs of all training images, (N, D) float32, the same in every process."""

    def __call__(
        self, model: str, what: Literal["embedding", "features", "logits"] = "embedding"
    ) -> np.ndarray: ...


class Strategy(Protocol):
    """How a run trains.

    Attributes:
        deploys: the module that is evaluated first and saved.
        task: what it makes of an image: an embedding to retrieve by, or scores of classes. A
            ``pretext`` task starts another run's backbone (``pretrain:``), trains a module
            called student for ``epochs``, and is not evaluated.
        weights: of its loss terms where the recipe gives none; 1 where this has none either.
    """

    deploys: str
    task: Literal["retrieval", "classification", "pretext"]
    weights: Mapping[str, Ramp]

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """Everything with weights or buffers, by name; asked for again after pretraining, for
        what the same modules then start with."""

    def seen_through(self, model: str, discoveries: int) -> str:
        """The module that stands in for ``model`` after so many discoveries that found anything."""

    def start(self, models: Models, extract: Extract) -> None:
        """Called once, before the first discovery: starts that depend on the data."""

    def phases(self, round: Round) -> list[Phase]: ...

    def begin(self, phase: Phase, models: Models, found: Found, extract: Extract) -> None: ...

    def losses(
        self, phase: Phase, models: Models, batch: Batch, clock: Clock
    ) -> dict[str, Tensor]: ...


class Found(NamedTuple):
    """The labels that a phase trains on, as all processes know them."""

    labels: np.ndarray  # (N,) int64 by position in the training set, -1 = unlabelled
    earlier: np.ndarray  # (N,) those of one discovery ago, for streams that lag
    given: np.ndarray  # (N,) bool, labelled by a person
    centres: np.ndarray | None  # (K, D) of the last discovery
    pairs: Pairs | None
    fresh: bool  # whether labels changed since the phase before

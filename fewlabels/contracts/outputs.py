"""What models return, what losses get, and the side of a running forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


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
_terms: ContextVar[dict[str, list[Any]] | None] = ContextVar("terms", default=None)


def write_side(name: str, value: Tensor) -> None:
    """From inside a block: add a tensor to the side outputs of the running forward, if any."""
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


def write_term(name: str, value: Tensor) -> None:
    """Hand a loss term (), from inside a block, to the running training step; else a no-op.

    Its block declares the name in ``terms``, and in ``weights`` what it counts where a recipe says
    nothing. Of several calls in a step the mean counts.
    """
    running = _terms.get()
    if running is not None:
        running.setdefault(name, []).append(value)


@contextmanager
def collect_terms() -> Iterator[dict[str, list[Any]]]:
    """The lists that blocks write their terms to while the body runs; a training step opens it."""
    written: dict[str, list[Any]] = {}
    token = _terms.set(written)
    try:
        yield written
    finally:
        _terms.reset(token)


# Of any model: a stranger's config that asks for more would only fill the memory.
LARGEST_IMAGE, LARGEST_EMBEDDING, SMALLEST_CROP = 4096, 65_536, 0.1

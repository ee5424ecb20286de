"""What models return and losses get; how blocks pass tensors out of a running forward."""

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
    """A memory of past embeddings, as a loss gets it: M entries, empty ones with label -1."""

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
    "mask",
    "second_labels",
    "logits",
    "side",
)
"""Names allowed for the positional parameters of a loss's forward; each says what is passed."""

_side: ContextVar[dict[str, Any] | None] = ContextVar("side", default=None)
_terms: ContextVar[dict[str, list[Any]] | None] = ContextVar("terms", default=None)


def write_side(name: str, value: Tensor) -> None:
    """Add a tensor to the running forward's ``Output.side``, from a block; no-op without one."""
    running = _side.get()
    if running is not None:
        running[name] = value


@contextmanager
def collect_side() -> Iterator[dict[str, Any]]:
    """Collect what blocks give to :func:`write_side` in the body; used by a model's forward."""
    written: dict[str, Any] = {}
    token = _side.set(written)
    try:
        yield written
    finally:
        _side.reset(token)


def write_term(name: str, value: Tensor) -> None:
    """Add a scalar loss term to the running training step, from a block; no-op without one.

    The block declares the name in ``terms``, and in ``weights`` its weight if a recipe sets none.
    If a name is written several times in a step, the mean counts.
    """
    running = _terms.get()
    if running is not None:
        running.setdefault(name, []).append(value)


@contextmanager
def collect_terms() -> Iterator[dict[str, list[Any]]]:
    """Collect what blocks give to :func:`write_term` in the body; used by a training step."""
    written: dict[str, list[Any]] = {}
    token = _terms.set(written)
    try:
        yield written
    finally:
        _terms.reset(token)


# Of any model: a stranger's config that asks for more would only fill the memory.
LARGEST_IMAGE, LARGEST_EMBEDDING, SMALLEST_CROP = 4096, 65_536, 0.1

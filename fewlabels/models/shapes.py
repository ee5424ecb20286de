"""The shapes that a network gives an image, without the time and memory of computing it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor

from fewlabels.models.modes import evaluating

LARGEST_COMPUTED = 512
"""Side in pixels of the largest image that is computed, if shapes cannot be had otherwise, while a
model of unknown origin is loaded."""
T = TypeVar("T")
LOG = logging.getLogger(__name__)
_computing: ContextVar[bool] = ContextVar("computing", default=True)


@contextmanager
def computing_nothing() -> Iterator[None]:
    """Context manager: a model that is made within it was made before, and is not tried again.

    So a config.json that says that images are large costs nothing until there is one.
    """
    before = _computing.set(False)
    try:
        yield
    finally:
        _computing.reset(before)


def may_compute() -> bool:
    """Whether a model that is being made may be tried with images."""
    return _computing.get()


def trace_blank_image(
    network: nn.Module, function: Callable[[Any, Tensor], T], image_size: int
) -> T:
    """``function`` of a copy of a network and a blank image (1, 3, S, S), in evaluation mode.

    Copy and image are torch's fake tensors, which have a shape and no values: so an image of any
    size costs nothing, and no layer keeps what it made of it. A network that looks at values is
    computed instead.

    Raises:
        Exception: what the network raises of such an image.
    """
    reference = next(network.parameters(), torch.empty(0))

    def run(module: nn.Module) -> T:
        sides = (1, 3, image_size, image_size)
        image = torch.zeros(sides, dtype=reference.dtype, device=reference.device)
        with torch.no_grad():
            return function(module, image)

    if reference.is_meta:  # has no values either
        with evaluating(network):
            return run(network)
    try:
        # A fallback would compute what torch knows no shape of.
        mode = fake_tensor.FakeTensorMode(allow_fallback_kernels=False, allow_non_fake_inputs=True)
        with _silent_log(), mode:
            return run(_copy_without_values(network, mode).eval())
    except Exception as error:  # a network's own, or one of many of torch's for what has no values
        if image_size > LARGEST_COMPUTED and not may_compute():
            raise
        LOG.debug("%s is computed, since without values: %s", type(network).__name__, error)
    return run(copy.deepcopy(network).eval())  # what it raises then is said in its own words


def _copy_without_values(network: nn.Module, mode: fake_tensor.FakeTensorMode) -> nn.Module:
    """A copy of a network whose parameters and buffers are fake."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): mode.from_tensor(tensor) for tensor in tensors})


@contextmanager
def _silent_log() -> Iterator[None]:
    """Context manager: torch does not print what it also raises."""
    log = logging.getLogger(fake_tensor.__name__)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before

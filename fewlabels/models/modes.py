"""Train and evaluation mode of a module and of its batch norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def set_training(module: nn.Module, freeze_statistics: bool) -> None:
    """Train mode; with the running statistics of batch norms fixed, or not."""
    module.train()
    if freeze_statistics:
        for norm in batch_norms(module):
            norm.eval()


def freeze_norms(module: nn.Module) -> None:
    """No gradient for the weights and biases of batch norms."""
    for norm in batch_norms(module):
        norm.requires_grad_(False)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Those of a network and of its blocks."""
    return [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]


@contextmanager
def keeping_modes(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Afterwards each submodule is in the mode that it was in before, also after an error.

    Gives a function that puts the modes back while it is open.
    """
    modes = {module: module.training for module in model.modules()}

    def restore_modes() -> None:
        for module, mode in modes.items():
            module.training = mode

    try:
        yield restore_modes
    finally:
        restore_modes()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While open, a model is in evaluation mode; each submodule is as before afterwards.

    ::

        with evaluating(model), torch.no_grad():
            output = model(images)
    """
    with keeping_modes(model):
        model.eval()
        yield

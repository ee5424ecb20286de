"""Train and evaluation mode of a module and of its batch norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def set_training(module: nn.Module, freeze_statistics: bool) -> None:
    """Set train mode; if ``freeze_statistics``, batch norms are in evaluation mode instead."""
    module.train()
    if freeze_statistics:
        for norm in batch_norms(module):
            norm.eval()


def freeze_norms(module: nn.Module) -> None:
    """Turn off the gradients of the weights and biases of batch norms."""
    for norm in batch_norms(module):
        norm.requires_grad_(False)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """All batch norms in a network, including those of its blocks."""
    return [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]


@contextmanager
def keeping_modes(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Context manager: on exit, also after an error, each submodule gets its old mode back.

    Gives a function that restores the old modes earlier, within the body.
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
    """Context manager: evaluation mode within it; on exit each submodule gets its old mode back.

    ::

        with evaluating(model), torch.no_grad():
            output = model(images)
    """
    with keeping_modes(model):
        model.eval()
        yield


@contextmanager
def normalising_by_batch(model: nn.Module) -> Iterator[None]:
    """Context manager: within it, batch norms alone are in train mode, all else is evaluated.

    Running statistics move too, unless the caller holds them.
    """
    with evaluating(model):
        for norm in batch_norms(model):
            norm.train()
        yield

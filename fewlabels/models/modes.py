"""Train and evaluation mode of a module and of its batch norms."""

from __future__ import annotations

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

"""Checks whether the layers after a block depend on the order of its positions."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fewlabels.errors import ModelError
from fewlabels.models.modes import batch_norms

FELT = 1e-9
"""A relative change of the features below this is rounding error, in float64."""


def refuse_where_averaged(backbone: nn.Module, after: str, image_size: int, what: str) -> None:
    """Refuse a block's place if the layers after it only average over positions.

    Args:
        backbone: with a block inserted after the module ``after``.

    Raises:
        ModelError: the pooled features do not change when the block's positions are permuted.
    """
    if order_felt(backbone, after, image_size) < FELT:
        raise ModelError(
            f"block {what!r} after {after!r}: average pooling undoes it, because to all that "
            "stands behind it one order of positions is as good as another; put it after an "
            "earlier stage, before one that looks at neighbours, or use normalise: softmax"
        )


@torch.no_grad()
def order_felt(backbone: nn.Module, after: str, image_size: int) -> float:
    """The relative change of the pooled features when the map's positions are permuted.

    Weights and images are random, since only the architecture counts. It is computed in float64, in
    evaluation mode.
    """
    generator = torch.Generator().manual_seed(0)
    model: Any = copy.deepcopy(backbone).cpu().double()
    # New weights: those at hand may hide a layer, as a residual branch that begins at 0.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.uniform_(0.5, 1.5, generator=generator)
    block = _Reorder(generator)
    model.get_submodule(after).block = block
    image = torch.rand(2, 3, image_size, image_size, dtype=torch.float64, generator=generator)
    model.eval()
    for norm in batch_norms(model):  # new weights want new statistics: those of this image
        norm.train()
        norm.momentum = 1.0  # type: ignore[assignment]
    model.forward_features(image)
    model.eval()
    features = []
    for block.reorders in (False, True):
        features.append(model.forward_head(model.forward_features(image), pre_logits=True))
    return float((features[1] - features[0]).norm() / features[0].norm())


class _Reorder(nn.Module):
    """Returns a map as it is or, if ``reorders``, with its positions permuted."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator, self.reorders = generator, False

    def forward(self, maps: Tensor) -> Tensor:
        """A map of the same shape (B, C, H, W)."""
        if not self.reorders:
            return maps
        order = torch.randperm(maps[0, 0].numel(), generator=self.generator)
        return maps.flatten(2)[..., order].view_as(maps)

"""A model whose backbone is frozen: the part that is trained, apart from the rest and put back."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor

from fewlabels.models.head import HeadedBackbone
from fewlabels.models.image_model import ImageModel

Model = TypeVar("Model", bound=ImageModel)
TRUNK = "backbone.trunk."
"""How names of the frozen weights start."""
_OUTSIDE, _INSIDE = "backbone.", "backbone.head."


def pool_features(model: ImageModel, images: Tensor) -> Tensor:
    """Features (B, F) that the network under a model's head makes of images (B, 3, H, W)."""
    network: HeadedBackbone = model.backbone
    return network.pool_features((images - model.mean) / model.std)


def detach_head(model: Model) -> Model:
    """A copy of a model with a ``head`` without the network under it.

    Its images are pooled features (B, F, 1, 1), its weights only those that are trained.
    """
    whole: HeadedBackbone = model.backbone
    model.backbone = whole.head
    try:
        part = copy.deepcopy(model)
    finally:
        model.backbone = whole
    part.input_shape = (whole.head.width, 1, 1)
    for name, value in (("mean", 0.0), ("std", 1.0)):
        part.register_buffer(name, torch.full((1, 1, 1, 1), value), persistent=False)
    return part


def attach_head(model: Model, part: Model) -> Model:
    """The whole model with the weights of what :func:`detach_head` gave."""
    under = {n: v for n, v in model.state_dict().items() if n.startswith(TRUNK)}
    above = {
        _INSIDE + n.removeprefix(_OUTSIDE) if n.startswith(_OUTSIDE) else n: v
        for n, v in part.state_dict().items()
    }
    model.load_state_dict({**under, **above})
    return model

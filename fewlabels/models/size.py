"""How large a model may be: what a config.json from elsewhere asks for is weighed before it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fewlabels.errors import ModelError
from fewlabels.models.backbone import insert_block, make_backbone
from fewlabels.models.folder import ImageConfig

LARGEST_IMAGE = 2048
"""Twice what any model of timm sees."""
LARGEST_OPTION = 16_384
"""Of whole numbers that a backbone or a block takes, as widths and depths."""


def check_size(config: ImageConfig, state: Mapping[str, Tensor], what: str) -> None:
    """Refuse a config that asks for more memory than the weights beside it can fill.

    The model is made of torch's meta tensors for it, which have a shape and no memory; as far as
    that goes, since a plugin may need numbers to be made. Where it fails, making the model says why.

    Raises:
        ModelError: so.
    """
    if not config.image_size <= LARGEST_IMAGE:
        raise ModelError(
            f"{what}/config.json: image_size {config.image_size}: at most {LARGEST_IMAGE}"
        )
    blocks = [block.model_dump() for block in config.blocks]
    for key, value in _numbers({"backbone_options": config.backbone_options, "blocks": blocks}):
        if abs(value) > LARGEST_OPTION:
            raise ModelError(f"{what}/config.json: {key}: {value}: at most {LARGEST_OPTION}")

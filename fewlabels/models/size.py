"""How large a model may be: what a foreign config.json asks for is weighed before it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fewlabels.errors import ModelError
from fewlabels.models.backbone import insert_block, make_backbone
from fewlabels.models.folder import ImageConfig

LARGEST_OPTION = 16_384
"""Of whole numbers that a backbone or a block takes, as widths and depths."""


def check_size(config: ImageConfig, state: Mapping[str, Tensor], what: str) -> None:
    """Refuse a config that asks for more memory than the weights beside it can fill.

    The model is made of torch's meta tensors for that, which have a shape and no memory. Where this
    fails, what was made so far counts: making the real one says why.

    Args:
        what: the config's name in errors.

    Raises:
        ModelError: so.
    """
    blocks = [block.model_dump() for block in config.blocks]
    for key, value in _numbers({"backbone_options": config.backbone_options, "blocks": blocks}):
        if abs(value) > LARGEST_OPTION:
            raise ModelError(f"{what}: {key}: {value}: at most {LARGEST_OPTION}")
    with torch.device("meta"):
        backbone = None
        try:
            backbone = make_backbone(
                config.backbone,
                pooling=config.pooling,
                image_size=config.image_size,
                options=config.backbone_options,
            )
            for block in blocks:
                insert_block(backbone, block, config.image_size)
        except Exception:
            if backbone is None:
                return
    asked = sum(value.numel() for value in backbone.state_dict().values())
    held = sum(value.numel() for value in state.values())
    if asked > held:
        raise ModelError(
            f"{what}: describes a model of {asked:,} numbers, and the weights beside it "
            f"are {held:,}; copy both files again"
        )


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Whole numbers in a config, each with the key that it is under."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _numbers(each, f"{key}.{name}".strip("."))
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each, key)
    elif isinstance(value, int):
        yield key, value

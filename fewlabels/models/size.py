"""How large a model may be: what a foreign config.json asks for is weighed before it is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from fewlabels.errors import ModelError
from fewlabels.models.backbone import insert_block, make_backbone
from fewlabels.models.folder import ImageConfig
from fewlabels.registry import backbones, blocks

LARGEST_OPTION = 16_384
"""Of whole numbers that a backbone or a block takes; as a depth, more could be made for hours."""


def check_options(options: Mapping[str, Any], placed: Iterable[Mapping[str, Any]]) -> None:
    """Refuse gigantic numbers in the options of a backbone and of its blocks.

    Raises:
        ModelError: so.
    """
    for key, value in _numbers({"backbone_options": options, "blocks": list(placed)}):
        if abs(value) > LARGEST_OPTION:
            raise ModelError(f"{key}: {value}: expected at most {LARGEST_OPTION}")


def check_size(config: ImageConfig, state: Mapping[str, Tensor]) -> None:
    """Refuse a config that asks for more memory than the weights beside it can fill.

    The model is made of torch's meta tensors for that, which have a shape and no memory. Where this
    fails, what was made so far counts: making the real one says why.

    Raises:
        ModelError: so, or an unknown block.
    """
    placed = [block.model_dump() for block in config.blocks]
    check_options(config.backbone_options, placed)
    # Imported before, or the constants of a plugin would be made without numbers.
    if (name := config.backbone.split(".")[0]) in backbones.names():
        backbones.get(name)
    for block in config.blocks:
        blocks.get(block.name)
    backbone = None
    with torch.device("meta"), suppress(Exception):  # of a plugin's too, which may need numbers
        backbone = make_backbone(
            config.backbone,
            pooling=config.pooling,
            image_size=config.image_size,
            options=config.backbone_options,
        )
        for each in placed:
            insert_block(backbone, each, config.image_size)
    asked = _count(backbone.state_dict()) if backbone else 0
    held = _count(state)
    if asked > held:
        raise ModelError(
            f"describes a model of {asked:,} numbers, and the weights beside it are {held:,}; copy "
            "both files again"
        )


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Whole numbers at any depth, each with the key that it is under."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _numbers(each, f"{key}.{name}".strip("."))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _numbers(each, key)
    elif isinstance(value, int):
        yield key, value

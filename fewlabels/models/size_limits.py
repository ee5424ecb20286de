"""Limits on a model's size, checked on a foreign config.json before the model is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fewlabels.errors import ModelError
from fewlabels.models.backbone import make_backbone, place_block
from fewlabels.models.head import HeadedBackbone
from fewlabels.models.saved_folder import ClassifierConfig, EmbedderConfig, ImageConfig
from fewlabels.registry import backbones, blocks

LARGEST_OPTION = 16_384
"""Largest number allowed in the options of a backbone or a block."""
LARGEST_MULTIPLIER = 100
"""Largest of those by which timm multiplies its lists of layers, before torch sees any."""
MOST_TENSORS = 5_000
"""Tensors allowed in a file of weights; timm's deepest models have 2,000."""
MOST_BLOCKS = 64
LARGEST_TENSOR = 2**29
"""Most numbers allowed in one feature map of one image (2 GiB)."""
MORE = 2
"""Numbers, and tensors, allowed in a model per one in its weights; loading reports smaller misfits.
"""
OPERATIONS = 500
"""Operations allowed per weight tensor to make a model and run an image; most need 10, a MaxViT
200."""


def check_options(options: Mapping[str, Any], placed: Iterable[Mapping[str, Any]]) -> None:
    """Refuse too large numbers in the options of a backbone and its blocks, and too many blocks.

    Raises:
        ModelError: a number or the count of blocks is above its limit.
    """
    placed = list(placed)
    if len(placed) > MOST_BLOCKS:
        raise ModelError(f"blocks: {len(placed)} of them: expected at most {MOST_BLOCKS}")
    for key, value in _iterate_numbers({"backbone_options": options, "blocks": placed}):
        most = LARGEST_MULTIPLIER if key.endswith("multiplier") else LARGEST_OPTION
        if not abs(value) <= most:  # nor NaN
            raise ModelError(f"{key}: {value}: expected at most {most}")


def check_size(config: ImageConfig, state: Mapping[str, Tensor]) -> None:
    """Refuse a config that asks for more memory or time than the weights beside it can need.

    The model is made of torch's meta tensors, which have a shape and no memory, and runs on one
    image. If this fails, the parts made so far count; making the real model then says why.

    Raises:
        ModelError: the config asks for too much, or for an unknown block.
    """
    placed = [block.model_dump() for block in config.blocks]
    check_options(config.backbone_options, placed)
    if len(state) > MOST_TENSORS:
        raise ModelError(
            f"{len(state):,} tensors of weights beside it; at most {MOST_TENSORS:,} are read"
        )
    # Imported before, or the constants of a plugin would be made without numbers.
    if (name := config.backbone.split(".")[0]) in backbones.names():
        backbones.get(name)
    for block in config.blocks:
        blocks.get(block.name)
    parts = 1 + len(placed)  # each sees an image
    weighed = _Weighed(OPERATIONS * len(state) * parts + 5000, MORE * len(state) + 100)
    asked, held = 0, sum(tensor.numel() for tensor in state.values())
    # Any exception: of a plugin's too, which may need numbers.
    with torch.device("meta"), _Fused(), weighed, suppress(Exception):
        for asked in _numbers_asked(config, placed):
            if asked > MORE * held:
                break
    if asked > MORE * held:
        raise ModelError(
            f"describes a model of {asked:,} numbers, and the weights beside it are {held:,}; copy "
            "both files again"
        )
    if weighed.operations > weighed.most or weighed.made > weighed.most_made:
        raise ModelError(
            f"describes a far deeper model than the {len(state)} tensors of weights beside it; "
            "copy both files again"
        )
    if weighed.largest > max(held, LARGEST_TENSOR):
        raise ModelError(
            f"asks for {weighed.largest:,} numbers in one tensor to see an image of "
            f"{config.image_size} pixels; at most {LARGEST_TENSOR:,} are given"
        )


def _numbers_asked(config: ImageConfig, placed: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    """How many numbers the model's state has so far, after each part that is made."""
    backbone: Any = make_backbone(
        config.backbone,
        pooling=config.pooling,
        image_size=config.image_size,
        options=config.backbone_options,
    )

    def count() -> int:
        return sum(tensor.numel() for tensor in backbone.state_dict().values())

    yield count()
    for each in placed:
        place_block(backbone, each, config.image_size)
        yield count()
    if config.head is not None:
        image = torch.zeros(1, 3, config.image_size, config.image_size)
        with torch.no_grad():
            maps = backbone.eval().forward_features(image)
            width = backbone.forward_head(maps, pre_logits=True).shape[1]
        backbone = HeadedBackbone(backbone, width, config.head, config.hidden, config.mirror)
        yield count()
    if isinstance(config, ClassifierConfig):
        backbone.reset_classifier(len(config.classes))
        yield count()
    with torch.no_grad():
        maps = backbone.eval().forward_features(
            torch.zeros(1, 3, config.image_size, config.image_size)
        )
        width = backbone.forward_head(maps, pre_logits=True).shape[1]
    if isinstance(config, EmbedderConfig):
        yield count() + (width + 1) * (config.embedding_size or 0)


class _TooManyError(Exception):
    """Raised at the limit of operations, to stop what would run for hours."""


class _Fused(TorchFunctionMode):
    """Skips attention's weights (N, N), which torch only materialises for meta tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = {**dict(zip(("query", "key", "value"), args)), **(kwargs or {})}
        return given["query"].new_empty(*given["query"].shape[:-1], given["value"].shape[-1])


class _Weighed(TorchDispatchMode):
    """Counts the operations inside and the tensors that they make, and notes the largest result."""

    def __init__(self, most: int, most_made: int) -> None:
        super().__init__()
        self.most, self.operations, self.largest = most, 0, 0
        self.most_made, self.made = most_made, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.made += func is torch.ops.aten.empty.memory_format
        if self.operations > self.most or self.made > self.most_made:
            raise _TooManyError
        result = func(*args, **(kwargs or {}))
        sizes = (t.numel() for t in tree_leaves(result) if isinstance(t, Tensor))
        self.largest = max(self.largest, *sizes, 0)
        return result


def _iterate_numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The numbers at any depth of nested options, each with its key."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _iterate_numbers(each, f"{key}.{name}".strip("."))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _iterate_numbers(each, key)
    elif isinstance(value, (int, float)):
        yield key, value

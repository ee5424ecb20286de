"""Inserts a block after a named module of any backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewlabels.errors import ModelError, first_few, suggest_nearest
from fewlabels.models.shapes import trace_blank_image


class Layout(NamedTuple):
    """The layout of a backbone's feature map.

    ``kind`` is the order of its axes. N are the positions, row by row, after ``prefix`` tokens
    (class token, registers), which a block does not get.
    """

    kind: str  # "BCHW", "BHWC" or "BNC"
    channels: int
    height: int
    width: int
    prefix: int = 0


class Followed(nn.Module):
    """A module followed by a block, which processes the module's output."""

    def __init__(self, module: nn.Module, block: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.module, self.block, self.layout = module, block, layout
        self.bypassed = False

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The module's output in its own layout; the block gets (B, C, H, W)."""
        output: Tensor = self.module(*args, **kwargs)
        if self.bypassed:
            return output
        kind, prefix = self.layout.kind, self.layout.prefix
        if kind == "BCHW":
            return self.block(output)
        if kind == "BHWC":
            return self.block(output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        tokens = output[:, prefix:]
        ratio = self.layout.height / self.layout.width
        height = round(math.sqrt(tokens.shape[1] * ratio))  # of an image of another size too
        maps = self.block(tokens.transpose(1, 2).unflatten(2, (height, -1)))
        return torch.cat([output[:, :prefix], maps.flatten(2).transpose(1, 2)], 1)


@contextmanager
def without_blocks(model: nn.Module) -> Iterator[bool]:
    """Context manager: within it a model computes as if no block had been inserted.

    Gives whether there is any block.
    """
    places = [module for module in model.modules() if isinstance(module, Followed)]
    for place in places:
        place.bypassed = True
    try:
        yield bool(places)
    finally:
        for place in places:
            place.bypassed = False


def insert_module(
    backbone: nn.Module,
    after: str,
    make: Callable[[Layout], nn.Module],
    image_size: int,
    what: str = "block",
) -> None:
    """Insert a block after a module, in place.

    Afterwards the module's parameters are under ``AFTER.module``, and the block's under
    ``AFTER.block``; so load the backbone's weights before.

    Args:
        after: the module's path, as in ``named_modules``.
        make: makes the block from the layout of the module's output.
        image_size: side in pixels of the image with which that layout is measured.
        what: the block's name, for errors.

    Raises:
        ModelError: no such module, one whose output is not a feature map, or one that an image does
            not pass exactly once.
    """
    known = [name for name, _ in backbone.named_modules() if name]
    if after not in known:
        raise ModelError(
            f"block {what!r}: the backbone has no module {after!r}{suggest_nearest(after, known)}  "
            f"(it has {first_few(known, 12)})"
        )
    layout = layout_after(backbone, after, image_size, what)
    owner, _, name = after.rpartition(".")
    parent = backbone.get_submodule(owner)
    followed = Followed(parent.get_submodule(name), make(layout), layout)
    followed.train(backbone.training)
    parent.add_module(name, followed)


def layout_after(backbone: Any, after: str, image_size: int, what: str = "block") -> Layout:
    """The layout of a module's output, measured with one blank image."""

    def record_outputs(network: Any, image: Tensor) -> list[Any]:
        outputs: list[Any] = []
        handle = network.get_submodule(after).register_forward_hook(
            lambda module, inputs, output: outputs.append(output)
        )
        try:
            network.forward_features(image)
        finally:
            handle.remove()
        return outputs

    try:
        outputs = trace_blank_image(backbone, record_outputs, image_size)
    except Exception as error:  # options can make a network fail in any way
        raise ModelError(
            f"block {what!r}: the backbone cannot see images of {image_size} pixels: "
            f"{type(error).__name__}: {error}"
        ) from error
    if len(outputs) != 1:
        often = "never" if not outputs else f"{len(outputs)} times"
        raise ModelError(
            f"block {what!r}: an image passes {after!r} {often} on the way to the last feature "
            "map, not once; choose a stage or a block"
        )
    output = outputs[0]
    if isinstance(output, Tensor) and output.ndim == 4:
        last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
        _, *sides = output.permute(0, 3, 1, 2).shape if last else output.shape
        return Layout("BHWC" if last else "BCHW", *sides)
    if isinstance(output, Tensor) and output.ndim == 3:
        prefix = int(getattr(backbone, "num_prefix_tokens", 0))
        count = output.shape[1] - prefix
        side = math.isqrt(count)
        if side * side == count:
            return Layout("BNC", output.shape[2], side, side, prefix)
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise ModelError(
        f"block {what!r}: {after!r} gives {shape}, no feature map (B, C, H, W), (B, H, W, C) or "
        "(B, N, C) of a square; choose a stage or a block"
    )

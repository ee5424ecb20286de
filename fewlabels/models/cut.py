"""Cuts a classifier in two at a layer: what stands before it, and the network that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels.errors import ModelError, first_few, suggest_nearest
from fewlabels.models.classifier import Classifier
from fewlabels.models.modes import keeping_modes


def find_layer(model: Classifier, layer: str | int | None) -> str:
    """The path in the backbone of the layer at which a network is cut.

    Args:
        layer: a path; or the number of a stage in the backbone's ``feature_info``, -1 for the last
            one before global pooling, -2 for the one before it; None: -1.

    Raises:
        ModelError: no such module or stage, or a backbone that does not say what its stages are.
    """
    if isinstance(layer, str):
        known = [name for name, _ in model.backbone.named_modules() if name]
        if layer not in known:
            raise ModelError(
                f"composition layer: backbone {model.name!r} has no module {layer!r}"
                f"{suggest_nearest(layer, known)}  (all: {first_few(known, 12)})"
            )
        return layer
    stages, number = list_stages(model.backbone), -1 if layer is None else layer
    if not -len(stages) <= number < len(stages):
        raise ModelError(
            f"composition layer: backbone {model.name!r} has no stage {number}, for it has "
            f"{len(stages)} ({first_few(stages, 12)}); name a module"
        )
    return stages[number]


def list_stages(backbone: nn.Module) -> list[str]:
    """The paths of a backbone's stages, in forward order, according to its ``feature_info``.

    Raises:
        ModelError: a backbone that does not say what its stages are.
    """
    info: Any = getattr(backbone, "feature_info", None)
    stages = [stage["module"] for stage in getattr(info, "info", info) or () if stage.get("module")]
    if not stages:
        raise ModelError(
            "composition layer: this backbone does not say what its stages are; name one of its "
            f"modules (it has {first_few([n for n, _ in backbone.named_children()], 12)})"
        )
    return [str(stage) for stage in stages]


def freeze_before(model: Classifier, layer: str) -> Tensor:
    """Freeze the parameters before the layer; give the layer's map (1, ...) of a random image.

    Raises:
        ModelError: a layer that does not cut the network in two, or whose output is no map.
    """
    rng = torch.Generator().manual_seed(0)
    one, two = torch.rand(2, 1, *model.input_shape, generator=rng)
    with torch.no_grad():
        found = map_at(model, layer, one)
    if not isinstance(found, Tensor) or found.ndim not in (3, 4):
        raise ModelError(
            f"composition layer {layer!r} gives no feature map (B, C, H, W), (B, H, W, C) or "
            "(B, N, C); choose a stage or a block"
        )
    leaf, calls = found.clone().requires_grad_(), 0

    def put(own: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return leaf.clone()  # what follows may change it in place

    logits = []
    try:
        with replace_output(model, layer, put):
            logits = [model(images).logits for images in (one, two)]
    except (RuntimeError, ValueError):
        pass  # the map does not fit where it passes the layer again
    if calls != 2 or not logits or not torch.equal(*logits):
        raise ModelError(
            f"composition layer {layer!r} does not cut backbone {model.name!r} in two: "
            "the map passes it more than once, or goes around it; choose a stage or a block"
        )
    learning = [p for p in model.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(logits[0].sum(), learning, allow_unused=True)
    for parameter, slope in zip(learning, slopes, strict=True):
        parameter.requires_grad_(slope is not None)
    return found


@torch.no_grad()
def is_affine_after(model: Classifier, layer: str, like: Tensor) -> bool:
    """Whether what follows a layer is an affine map: f(a/2 + b/2) = f(a)/2 + f(b)/2.

    It is compared on the pooled features of two random maps, which the last layer is linear in.

    Args:
        like: a map (1, ...) of the layer; the random ones have its shape.
    """
    rng = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, *like.shape, generator=rng).to(like)
    image = torch.zeros(1, *model.input_shape).to(like)

    def pooled(maps: Tensor) -> Tensor:
        with replace_output(model, layer, lambda own: maps.clone()):
            features: Tensor = model(image).features
        return features

    ends = pooled(one), pooled(two)
    bend = pooled((one + two) / 2) - (ends[0] + ends[1]) / 2
    return bool(bend.norm() <= 1e-4 * (ends[0] - ends[1]).norm())


class _ReachedError(Exception):
    """Raised once the wanted layer has run, to skip the layers after it."""


def map_at(model: Classifier, layer: str, images: Tensor) -> Any:
    """The output of a layer of the backbone; the layers after it are not run."""
    found: list[Any] = []

    def stop(own: Any) -> None:
        found.append(own)
        raise _ReachedError

    try:
        with replace_output(model, layer, stop):
            model(images)
    except _ReachedError:
        pass
    if not found:
        raise ModelError(
            f"composition layer {layer!r} is not run by backbone {model.name!r}; choose another"
        )
    return found[0]


@contextmanager
def replace_output(model: Classifier, layer: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Context manager: within it, ``make(output)`` replaces the layer's output.

    Until the layer has run, all modules but batch norms are in evaluation mode, also in a model in
    train mode.
    """
    with keeping_modes(model) as restore_modes:

        def answer(module: nn.Module, inputs: Any, output: Any) -> Any:
            restore_modes()
            return make(output)

        handle = model.backbone.get_submodule(layer).register_forward_hook(answer)
        for each in model.modules():
            each.training = each.training and isinstance(each, _BatchNorm)
        try:
            yield
        finally:
            handle.remove()

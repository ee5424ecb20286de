"""Makes backbones by name, and loads weights whose names and shapes must all match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fewlabels.contracts import keeps_mean, missing_members, rename_published
from fewlabels.errors import (
    FewLabelsError,
    ModelError,
    component_failed,
    first_few,
    shorten,
    suggest_nearest,
)
from fewlabels.files import NO_FILE, find_path, looked_for
from fewlabels.models.finite import refuse_not_finite
from fewlabels.models.insert import Layout, insert_module
from fewlabels.models.order_probe import refuse_where_averaged
from fewlabels.models.pretrained import create_from_hub, find_source
from fewlabels.models.published_weights import (
    resample_positions,
    take_prefix_off,
    unwrap_tensors,
)
from fewlabels.models.shapes import may_compute
from fewlabels.registry import backbones, blocks
from fewlabels.registry.build import list_positional

# What timm.create_model takes for itself. A config.json from elsewhere must not reach a file or the
# network through it.
RESERVED = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_model_args",
    "checkpoint_path",
    "cache_dir",
    "num_classes",
    "global_pool",
    "in_chans",
    "features_only",
    "scriptable",
    "exportable",
    "no_jit",
}
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
"""Of files of weights; none but the first is read otherwise than as plain tensors."""
_OF_OPTIONS = (
    TypeError,
    ValueError,
    AssertionError,
    AttributeError,
    RuntimeError,
    LookupError,
    ArithmeticError,
)


def make_backbone(
    name: str,
    *,
    pretrained: bool = False,
    pooling: str | None = None,
    image_size: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A timm model without classifier; one of our registry is registered into timm first.

    Raises:
        ModelError: an unknown name, options that the backbone refuses, or pretrained weights that
            cannot be had.
    """
    options = dict(options or {})
    arch = name.split(".")[0]
    if arch in backbones.names():
        backbones.get(arch)
    if arch in backbones.names() and not timm.is_model(arch):
        raise ModelError(
            f"backbone {name!r} is not known to timm; its author puts timm.models.register_model "
            "above the function too"
        )
    if ":" not in name and not timm.is_model(arch):
        known = {*timm.list_models(), *backbones.names()}
        raise ModelError(
            f"neither timm nor a plugin has a backbone called {name!r}"
            f"{suggest_nearest(arch, known)}  (fewlabels list backbones)"
        )
    if reserved := sorted(RESERVED & set(options)):
        raise ModelError(
            f"backbone_options: {', '.join(reserved)} cannot be set there; these are the "
            "embedder's own: pretrained, weights, pooling"
        )
    if pretrained:
        refuse_unknown_weights(name)

    def create() -> nn.Module:
        try:
            config = None if ":" in name else timm.get_pretrained_cfg(name)
            if image_size and config is not None and config.fixed_input_size:
                options.setdefault("img_size", image_size)
            model: nn.Module = timm.create_model(
                name, pretrained=pretrained, num_classes=0, global_pool=pooling, **options
            )
        except Exception as error:  # options can make a constructor fail in any way
            if source and not isinstance(error, _OF_OPTIONS):
                raise  # the Hub's, of which there is more to say
            raise ModelError(
                f"backbone {name!r} with pooling {pooling!r} and options "
                f"{shorten(str(options))} cannot be made: {type(error).__name__}: {error}"
            ) from error
        return model

    source = find_source(name, pretrained)
    return create_from_hub(create, name, source) if source else create()


def refuse_unknown_weights(name: str) -> None:
    """Refuse ``pretrained`` of a backbone for which timm knows no weights; nothing is fetched.

    Raises:
        ModelError: so.
    """
    if (arch := name.split(".")[0]) in backbones.names():
        backbones.get(arch)
    if ":" not in name and not timm.models.is_model_pretrained(name):
        raise ModelError(
            f"timm has no pretrained weights for {name!r}; set pretrained: false, or weights: FILE"
        )


def insert_block(backbone: nn.Module, block: Mapping[str, Any], image_size: int) -> None:
    """Insert a registered block, a mapping of ``name``, ``after`` and options, into a backbone.

    That it has an effect at its place is not checked again in a model that is loaded.

    Raises:
        ModelError: no such block or module, options that the block refuses, or a place where
            average pooling would undo the block.
    """
    place_block(backbone, block, image_size)
    name, after = block["name"], block["after"]
    if may_compute() and keeps_mean(backbone.get_submodule(after).block):
        refuse_where_averaged(backbone, after, image_size, name)


def place_block(backbone: nn.Module, block: Mapping[str, Any], image_size: int) -> None:
    """As :func:`insert_block`, without its check that the block has an effect at that place.

    Raises:
        ModelError: no such block or module, or options that the block refuses.
    """
    options = dict(block)
    name, after = options.pop("name", None), options.pop("after", None)
    if not isinstance(name, str) or not isinstance(after, str):
        raise ModelError(f"block {dict(block)}: expected a name and after, a module's path")
    make = blocks.get(name)
    wanted = list_positional(make)

    def made(layout: Layout) -> nn.Module:
        try:
            result: nn.Module = make(*(getattr(layout, part) for part in wanted), **options)
        except (TypeError, ValueError) as error:
            raise ModelError(f"block {name!r} after {after!r}: {error}") from error
        if missing := missing_members("block", result):
            raise ModelError(f"block {name!r} breaks its contract: {missing}")
        return result

    try:
        insert_module(backbone, after, made, image_size, name)
    except FewLabelsError:
        raise
    except Exception as error:  # a plugin may fail in any way; say which, and where
        raise component_failed(f"block {name!r} after {after!r}", error) from error


def load_weights(backbone: nn.Module, path: str) -> None:
    """Fill a backbone from a local file of its weights; a classifier in it is left out.

    The tensors may be wrapped as other tools do, and position embeddings may be of another image
    size: see :mod:`fewlabels.models.published_weights`.

    Raises:
        ModelError: no such file, one that is not plain tensors, or tensors that do not fit or are
            not finite.
    """
    file = find_path(path)
    if file is None:
        raise ModelError(f"weights {path}: no such file; looked for {looked_for(path)}")
    if not file.is_file():
        raise ModelError(f"weights {file}: {NO_FILE}")
    if file.suffix not in SUFFIXES:
        raise ModelError(f"weights {file}: expected a {' or '.join(SUFFIXES)} file")
    what = f"weights {file}"
    try:
        state = timm.models.load_state_dict(str(file), device="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in any way; torch's advice cannot be followed
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ModelError(
            f"{what}: not a file of plain tensors, which alone is read ({reason}); copy it again, "
            "or save its state_dict alone, by torch.save or safetensors"
        ) from error
    classifier: Any = getattr(backbone, "pretrained_cfg", {}).get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    heads = tuple(f"{name}." for name in names)
    state, known = rename_published(backbone, unwrap_tensors(state, what)), backbone.state_dict()
    # Files from before batch norms counted their batches.
    counters = {n: v for n, v in known.items() if n.endswith(".num_batches_tracked")}
    wanted = [n for n in known if n not in counters and not n.startswith(heads)]
    state = {**counters, **take_prefix_off(state, wanted, what)}
    state = {n: v for n, v in state.items() if n in known or not n.startswith(heads)}
    load_exactly(backbone, resample_positions(backbone, state), what)
    refuse_not_finite(backbone, what, "use another file")


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load ``state`` if its names and shapes are those of ``module``.

    Raises:
        ModelError: naming the first tensors that are missing, not expected, of another shape, or
            of something else than plain real numbers.
    """
    known = module.state_dict()
    mistakes = {
        "missing": [name for name in known if name not in state],
        "not expected": [name for name in state if name not in known],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} for {tuple(known[name].shape)}"
            for name in known
            if name in state and state[name].shape != known[name].shape
        ],
        "without plain real numbers": [
            f"{name} ({value.dtype}, {value.layout}, {value.device})"
            for name, value in state.items()
            if value.is_complex()
            or value.is_quantized
            or value.is_meta
            or value.layout != torch.strided
        ],
    }
    said = [f"{first_few(names, 3)} {how}" for how, names in mistakes.items() if names]
    if said:
        raise ModelError(f"{what}: do not fit {type(module).__name__}: {'; '.join(said)}")
    with torch.no_grad():
        module.load_state_dict(dict(state), strict=True)

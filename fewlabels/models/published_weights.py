"""Weights as other tools publish them: wrapped, under a prefix, or of another image size."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fewlabels.errors import ModelError

_WRAPPERS = ("teacher", "student_ema", "state_dict", "model", "backbone", "net", "encoder", "ema")
"""Where a file keeps its tensors; of teacher and student, the teacher is what is published."""
_FOLLOWERS = {"student", "encoder_k", "momentum_encoder", "target_encoder"}
"""Copies that only serve the training of the network that a file is published for."""
_DEEPEST = 4
"""Wrappers in one another; a mapping of a stranger's may hold itself."""


def unwrap_tensors(content: Any, what: str) -> dict[str, Tensor]:
    """The mapping of names to tensors in a file that may hold more, as epochs and settings.

    Raises:
        ModelError: there is none.
    """
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            if not all(isinstance(name, str) for name in content):
                break
            return dict(content)
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        content = inner[0] if inner else None
    raise ModelError(f"{what}: expected a state dict, names with a tensor each; save that alone")


def take_prefix_off(
    state: Mapping[str, Tensor], wanted: Sequence[str], what: str
) -> dict[str, Tensor]:
    """What stands under the prefix under which all wanted names do; all of it where none does.

    So heads, queues and copies of a self-supervised method are left out, whose names have another.

    Raises:
        ModelError: two networks have all of the names.
    """
    first = wanted[0]
    prefixes = {name.removesuffix(first) for name in state if f".{name}".endswith(f".{first}")}
    whole = [p for p in sorted(prefixes) if all(p + name in state for name in wanted)]
    if not whole or "" in whole:
        return dict(state)
    leading = [p for p in whole if not _FOLLOWERS & set(p.split("."))] or whole
    if len(leading) > 1:
        raise ModelError(
            f"{what}: holds a backbone under {' and under '.join(map(repr, leading))}; save one of "
            "them alone"
        )
    return {k.removeprefix(leading[0]): v for k, v in state.items() if k.startswith(leading[0])}


def resample_positions(backbone: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Position embeddings of another image size for this one, as timm's models resample them.

    Nothing else may differ in shape: a patch size or a width is not the file's to change.
    """
    known = backbone.state_dict()
    differ = [name for name in known if name in state and state[name].shape != known[name].shape]
    resample = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if not differ or resample is None or not all("pos" in name for name in differ):
        return state
    try:
        resampled: dict[str, Tensor] = resample(dict(state), backbone)
    except Exception:  # of any shape that is none of positions; it is refused as it is
        return state
    return resampled

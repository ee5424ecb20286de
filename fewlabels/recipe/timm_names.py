"""The names of timm's models and optimisers, read from its source: importing takes four seconds."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

_REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
_OPTIMIZER = re.compile(r"(?:\bOptimInfo\(|register_alias\()\s*(?:name=)?'(\w+)'")


def _find_timm() -> Path | None:
    spec = importlib.util.find_spec("timm")
    return (
        Path(spec.submodule_search_locations[0])
        if spec and spec.submodule_search_locations
        else None
    )


@functools.cache
def list_timm_models() -> frozenset[str]:
    """The names of all models that the installed timm registers, without pretrained tags."""
    package = _find_timm()
    return (
        frozenset(
            name
            for file in (package / "models").glob("*.py")
            for name in _REGISTERED.findall(file.read_text("utf-8"))
        )
        if package
        else frozenset()
    )


@functools.cache
def list_timm_optimizers() -> frozenset[str]:
    """The names of all optimisers of the installed timm; each may be prefixed by ``lookahead_``."""
    package = _find_timm()
    if package is None:
        return frozenset()
    return frozenset(_OPTIMIZER.findall((package / "optim/_optim_factory.py").read_text("utf-8")))

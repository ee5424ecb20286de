"""The names of timm's models, read from its source: importing timm costs four seconds."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

_REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)


@functools.cache
def timm_names() -> frozenset[str]:
    """Every model that the installed timm registers; names without a pretrained tag."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    models = Path(spec.submodule_search_locations[0], "models")
    return frozenset(
        name
        for file in models.glob("*.py")
        for name in _REGISTERED.findall(file.read_text("utf-8"))
    )

"""Train image classifiers from a handful of labels, and image-retrieval embedders from none.

Names are imported when first used: ``import fewlabels`` loads neither torch nor timm.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Classifier": "fewlabels.models.classifier",
    "Embedder": "fewlabels.models.embedder",
    "FewLabelsError": "fewlabels.errors",
    "Index": "fewlabels.index.index",
    "load_recipe": "fewlabels.recipe",
    "sources": "fewlabels.registry",
    "train": "fewlabels.run",
    "views": "fewlabels.registry",
}
_FOLDERS = ("backbones", "blocks", "discovery", "losses", "strategies")
"""Each has ``register``, ``get`` and ``names`` too, as in ``@discovery.register("my_idea")``."""

__all__ = ["Classifier", "Embedder", "FewLabelsError", "Index", "load_recipe", "train"]
__all__ += ["backbones", "blocks", "discovery", "losses", "sources", "strategies", "views"]

if TYPE_CHECKING:
    from fewlabels import backbones, blocks, discovery, losses, strategies
    from fewlabels.errors import FewLabelsError
    from fewlabels.index.index import Index
    from fewlabels.models.classifier import Classifier
    from fewlabels.models.embedder import Embedder
    from fewlabels.recipe import load_recipe
    from fewlabels.registry import sources, views
    from fewlabels.run import train


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return importlib.import_module(f"fewlabels.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'fewlabels' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

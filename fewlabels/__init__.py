"""Train image classifiers from a handful of labels, and image-retrieval embedders from none.

Names are imported when first used: ``import fewlabels`` loads neither torch nor timm.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Classifier": "fewlabels.models.classifier",
    "Embedder": "fewlabels.models.embedder",
    "FewLabelsError": "fewlabels.errors",
    "Index": "fewlabels.search.index",
    "backbones": "fewlabels.registry",
    "blocks": "fewlabels.registry",
    "discovery": "fewlabels.registry",
    "load_recipe": "fewlabels.recipe.recipe",
    "losses": "fewlabels.registry",
    "sources": "fewlabels.registry",
    "strategies": "fewlabels.registry",
    "train": "fewlabels.runs.train",
    "views": "fewlabels.registry",
}
"""The public names, and the module that each is imported from."""

__all__ = ["Classifier", "Embedder", "FewLabelsError", "Index", "load_recipe", "train"]
__all__ += ["backbones", "blocks", "discovery", "losses", "sources", "strategies", "views"]

if TYPE_CHECKING:
    from fewlabels.errors import FewLabelsError
    from fewlabels.models.classifier import Classifier
    from fewlabels.models.embedder import Embedder
    from fewlabels.recipe.recipe import load_recipe
    from fewlabels.registry import (
        backbones,
        blocks,
        discovery,
        losses,
        sources,
        strategies,
        views,
    )
    from fewlabels.runs.train import train
    from fewlabels.search.index import Index


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fewlabels' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

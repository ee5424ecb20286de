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
    "train": "fewlabels.run",
}
__all__ = ["Classifier", "Embedder", "FewLabelsError", "Index", "load_recipe", "train"]

if TYPE_CHECKING:
    from fewlabels.errors import FewLabelsError
    from fewlabels.index.index import Index
    from fewlabels.models.classifier import Classifier
    from fewlabels.models.embedder import Embedder
    from fewlabels.recipe import load_recipe
    from fewlabels.run import train


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fewlabels' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

"""A saved model, whichever kind it is of."""

from __future__ import annotations

from pathlib import Path

from fewlabels.models import folder as folders
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder


def load_model(folder: str | Path) -> Embedder | Classifier:
    """The embedder or classifier in a folder, in evaluation mode.

    Raises:
        ModelError: as ``from_pretrained``.
    """
    kind = folders.kind(Path(folder))
    return (Classifier if kind == "classifier" else Embedder).from_pretrained(folder)

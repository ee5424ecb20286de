"""A saved model, whichever kind it is of."""

from __future__ import annotations

from pathlib import Path

from fewlabels.models import folder as folders
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder
from fewlabels.models.fetch import fetch


def load_model(place: str | Path, *, revision: str | None = None) -> Embedder | Classifier:
    """The embedder or classifier in a folder or a repository, in evaluation mode.

    Raises:
        ModelError, HubError: as ``from_pretrained``.
    """
    fetched = fetch(place, revision)
    kind = folders.kind(fetched.folder)
    return (Classifier if kind == "classifier" else Embedder).from_folder(*fetched)

"""Loads a saved model of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from fewlabels.errors import ModelError
from fewlabels.hub.download import download_model
from fewlabels.models import saved_folder as folders
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder

Kind = TypeVar("Kind", Embedder, Classifier)


def load_model(place: str | Path, *, revision: str | None = None) -> Embedder | Classifier:
    """The embedder or classifier in a folder or a repository, in evaluation mode.

    Raises:
        ModelError, HubError: as ``from_pretrained``.
    """
    fetched = download_model(place, revision)
    kind = folders.read_kind(fetched.folder)
    return (Classifier if kind == "classifier" else Embedder).from_folder(*fetched)


def load_embedder(place: str | Path) -> Embedder:
    """The embedder in a folder or a repository, in evaluation mode.

    Raises:
        ModelError, HubError: a classifier, or as ``from_pretrained``.
    """
    return _load_as(
        Embedder,
        place,
        "a classifier, which embeds nothing; give an embedder "
        "(fewlabels predict gives images the labels of a classifier)",
    )


def load_classifier(place: str | Path) -> Classifier:
    """The classifier in a folder or a repository, in evaluation mode.

    Raises:
        ModelError, HubError: an embedder, or as ``from_pretrained``.
    """
    return _load_as(
        Classifier,
        place,
        "an embedder, which knows no labels; give a classifier "
        "(fewlabels embed gives images the vectors of an embedder)",
    )


def _load_as(wanted: type[Kind], place: str | Path, otherwise: str) -> Kind:
    model = load_model(place)
    if not isinstance(model, wanted):
        raise ModelError(f"{place}: {otherwise}")
    return model

"""Backbones that timm gets from the Hub: it is asked first, and what it refuses is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import timm
from torch import nn

from fewlabels.errors import HubError, ModelError
from fewlabels.hub.errors import ask_hub

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PREFIX = "hf-hub:"


class Source(NamedTuple):
    """Where timm finds a backbone; ``repo`` is empty for a plain address."""

    repo: str
    revision: str | None
    file: str | None


def find_source(name: str, pretrained: bool) -> Source | None:
    """The repository of a backbone, or of its pretrained weights; None where nothing is fetched."""
    file = None
    if name.startswith(PREFIX):
        place = name.removeprefix(PREFIX)
    elif pretrained and ":" not in name:
        config = timm.get_pretrained_cfg(name)
        place, file = (config.hf_hub_id or "", config.hf_hub_filename) if config else ("", None)
    else:
        return None
    repo, _, revision = place.partition("@")
    return Source(repo, revision or None, file)


def create_from_hub(create: Callable[[], nn.Module], name: str, source: Source) -> nn.Module:
    """What ``create`` makes of files that are in the cache, or that the Hub gives out.

    Raises:
        ModelError: the Hub refuses or cannot be reached. The client alone would try for a minute.
    """
    try:
        if source.repo and not _is_cached(source):
            _ask_for(source)
        return ask_hub(create, source.repo or f"the weights of {name}", source.revision, waits=())
    except HubError as error:
        plain = "the backbone's plain name" if name.startswith(PREFIX) else "pretrained: false"
        raise ModelError(
            f"backbone {name!r}: {error}; or give weights: FILE, a local file of its weights, "
            f"with {plain}"
        ) from error


def _is_cached(source: Source) -> bool:
    from huggingface_hub import try_to_load_from_cache

    names = [source.file] if source.file else _WEIGHTS

    def look() -> bool:
        return any(
            isinstance(try_to_load_from_cache(source.repo, name, revision=source.revision), str)
            for name in names
        )

    return ask_hub(look, source.repo, source.revision, waits=())  # of a name that cannot be one


def _ask_for(source: Source) -> None:
    from huggingface_hub import HfApi, constants

    # Without a time limit the client waits for ever on a server that keeps silent.
    wait = constants.HF_HUB_ETAG_TIMEOUT
    ask_hub(
        lambda: HfApi().model_info(source.repo, revision=source.revision, timeout=wait),
        source.repo,
        source.revision,
    )

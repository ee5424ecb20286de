"""Finds the folder of a model given by a path or by its name on the Hub, which is downloaded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from fewlabels.errors import HubError, ModelError
from fewlabels.hub.errors import WAITS, ask_hub, is_unreachable
from fewlabels.hub.model_files import CONFIG, WEIGHTS, describe_missing_file

CARD = "README.md"
WANTED = [CONFIG, WEIGHTS]
"""The only files that are ever downloaded: no code and no pickle."""
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


class Fetched(NamedTuple):
    """A model's folder, and the name for it in error messages."""

    folder: Path
    what: str


def download_model(place: str | Path, revision: str | None = None) -> Fetched:
    """Return the local folder ``place``, or download the repository ``org/name`` to the cache.

    If a folder of that name exists, it is used. A model that was downloaded before is found in
    the cache without a network.

    Args:
        revision: a branch, tag or commit; None: the newest commit of ``main``.

    Raises:
        ModelError: ``place`` is neither a folder nor a name on the Hub, or the repository has no
            model of this package.
        HubError: the Hub refuses the repository, or cannot be reached.
    """
    folder = Path(place)
    if os.path.isdir(folder):  # a name that is too long is none of a folder
        if revision is not None:
            raise ModelError(f"{place} is a folder, which has no revisions; leave revision out")
        return Fetched(folder, str(folder))
    if isinstance(place, Path) or not NAME.fullmatch(place):
        raise ModelError(
            f"{place}: no such folder (looked for {folder.absolute()}), and no name on the Hub, "
            "which reads org/name; give a folder that save_pretrained wrote, or such a name"
        )
    what = place if revision is None else f"{place}@{revision}"
    also = f"; no folder {folder.absolute()} either"
    return Fetched(_download_files(place, revision, what, also), what)


def _download_files(repo: str, revision: str | None, what: str, also: str) -> Path:
    """The cache folder of a model: downloaded, or the copy there if the Hub is unreachable."""
    from huggingface_hub import HfApi, constants, hf_hub_download

    cached = _find_cached(repo, revision)
    if cached is not None and cached.name == revision:  # a commit: it cannot have changed
        return cached
    try:
        info = ask_hub(
            # Without a time limit the client waits for ever on a server that keeps silent.
            lambda: HfApi().model_info(
                repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
            ),
            repo,
            revision,
            also,
            waits=WAITS if cached is None else (),
        )
    except HubError as error:
        if cached is not None and is_unreachable(error):
            return cached
        raise
    names = sorted(file.rfilename for file in info.siblings or ())
    for name in WANTED:
        if name not in names:
            raise ModelError(describe_missing_file(what, name, names))

    def get(name: str, at: str | None) -> Path:
        return Path(ask_hub(lambda: hf_hub_download(repo, name, revision=at), repo, at))

    commit = get(CONFIG, revision).parent  # both files are of the commit of the first
    get(WEIGHTS, commit.name)
    return commit


def _find_cached(repo: str, revision: str | None) -> Path | None:
    """The folder in the cache that has both files of the model, or None."""
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(repo, name, revision=revision) for name in WANTED]
    folders_of = {Path(path).parent if isinstance(path, str) else None for path in paths}
    return folders_of.pop() if len(folders_of) == 1 else None

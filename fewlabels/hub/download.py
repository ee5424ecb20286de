"""The folder of a model that is named by a path or by its name on the Hub."""

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
"""All that is ever downloaded: no code, no pickle."""
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


class Fetched(NamedTuple):
    """A folder, and what an error calls it."""

    folder: Path
    what: str


def download_model(place: str | Path, revision: str | None = None) -> Fetched:
    """The folder ``place``, or a download of the repository ``org/name`` in the Hub's cache.

    A folder that exists is taken as such. A model that was loaded before is found in the cache
    without a network.

    Args:
        revision: a branch, tag or commit; None: the newest of ``main``.

    Raises:
        ModelError: no such folder, and no name either; a repository without a model of ours.
        HubError: a repository that the Hub does not give out, or that cannot be reached.
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
    """The folder of the cache with a repository's model, updated if the Hub can be reached."""
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
    """The folder of the cache with both files, if it has them."""
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(repo, name, revision=revision) for name in WANTED]
    folders_of = {Path(path).parent if isinstance(path, str) else None for path in paths}
    return folders_of.pop() if len(folders_of) == 1 else None

"""Uploads files to a repository of the Hub in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fewlabels.errors import HubError
from fewlabels.hub.download import NAME
from fewlabels.hub.errors import ask_hub

PATIENCE = 60.0
"""Timeout of the Hub's answers in seconds; HF_HUB_DOWNLOAD_TIMEOUT is used if larger."""


def upload_files(files: Mapping[str, Path | bytes], repo: str, private: bool, message: str) -> str:
    """Create the repository if it does not exist, and commit the files; returns the commit's URL.

    It may be repeated after a failure: large files that have arrived are not sent again, and
    unchanged files are left out of the commit. If no file has changed, there is no new commit.

    Args:
        files: paths or contents, by their path in the repository.
        private: create the repository as private.

    Raises:
        HubError: the name is not org/name, ``private`` is set but the repository is public, or the
            Hub refuses.
    """
    check_name(repo)
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="fewlabels")

    def commit() -> str:
        # A commit takes new operations: the client marks those that it has sent.
        added = [
            CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
            for path, content in files.items()
        ]
        return str(api.create_commit(repo, added, commit_message=message).commit_url)

    with _limit_waiting():
        ask_hub(lambda: api.create_repo(repo, private=private, exist_ok=True), repo)
        # What exists keeps its visibility, so that a private model would become public.
        if private and not ask_hub(lambda: api.model_info(repo).private, repo):
            raise HubError(
                f"{repo} is there already, and public; make it private in its settings, or take "
                "another name"
            )
        return ask_hub(commit, repo)


@contextmanager
def _limit_waiting() -> Iterator[None]:
    """Set a timeout for the Hub's client, which otherwise waits for ever for an answer.

    Before its version 1 the client has no such setting.
    """
    from huggingface_hub import constants, get_session

    client = get_session()
    before = getattr(client, "timeout", None)
    client.timeout = max(PATIENCE, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        client.timeout = before


def check_name(repo: str) -> None:
    """Check that a name has the form ``org/name``.

    Raises:
        HubError: it has not.
    """
    if not NAME.fullmatch(repo):
        raise HubError(f"{repo!r} is no name on the Hub; write org/name")

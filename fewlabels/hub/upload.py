"""Files into a repository of the Hub, in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fewlabels.errors import HubError
from fewlabels.hub.download import NAME
from fewlabels.hub.errors import ask_hub

PATIENCE = 60.0
"""Seconds that the Hub may keep silent, or as many as HF_HUB_DOWNLOAD_TIMEOUT says if more."""


def upload_files(files: Mapping[str, Path | bytes], repo: str, private: bool, message: str) -> str:
    """Make the repository if need be, and commit the files; gives the address of the commit.

    It may be repeated after a failure: large files that have arrived are not sent again, and
    files that stand there unchanged are left out of the commit; none is made of nothing.

    Args:
        files: by their path in the repository.

    Raises:
        HubError: a name that is not org/name, a public repository where ``private`` is asked for,
            or what the Hub refuses.
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
    """The client gives up on a silent server, for which it would wait for ever by itself.

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
    """Refuse what is not ``org/name``.

    Raises:
        HubError: saying so.
    """
    if not NAME.fullmatch(repo):
        raise HubError(f"{repo!r} is no name on the Hub; write org/name")

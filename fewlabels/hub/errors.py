"""What the Hub's client raises, as one sentence with its fix."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from fewlabels.errors import FewLabelsError, HubError

T = TypeVar("T")
WAITS = (0.5, 2.0)
"""Seconds before the second and the third try."""
LOGIN = "log in by `hf auth login`, or set HF_TOKEN"


def ask_hub(
    call: Callable[[], T],
    repo: str,
    revision: str | None = None,
    also: str = "",
    waits: tuple[float, ...] = WAITS,
) -> T:
    """What ``call`` gives; after an error of the server or the line it is called again.

    Args:
        also: what was looked for besides, added where the repository is not found.
        waits: seconds before each further try.

    Raises:
        HubError: one sentence for anything that the client raises.
    """
    for wait in (*waits, None):
        try:
            return call()
        except FewLabelsError:
            raise
        except Exception as error:  # the client has dozens of kinds, those of its transport too
            if wait is None or not _passes(error):
                raise HubError(sentence(error, repo, revision, also)) from error
            time.sleep(wait)
    raise AssertionError("not reached")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """The status that the server answered, if it did."""
    for each in _chain(error):
        code = getattr(getattr(each, "response", None), "status_code", None)
        if code is not None:
            return int(code)
    return None


def _offline(error: BaseException) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    chain = list(_chain(error))
    forced = any(isinstance(each, OfflineModeIsEnabled) for each in chain)
    return forced or (isinstance(chain[-1], LocalEntryNotFoundError) and _status(error) is None)


def _of_the_line(error: BaseException) -> bool:
    """Whether the transport failed; the client's is httpx, before its version 1 requests."""
    modules = {type(each).__module__.partition(".")[0].rstrip("2") for each in _chain(error)}
    return bool(modules & {"httpx", "httpcore", "requests", "urllib3"})


def _passes(error: BaseException) -> bool:
    """Whether the same call may succeed in a moment."""
    status = _status(error)
    if status is not None:
        return status >= 500
    return _of_the_line(error) and not _offline(error)


def is_away(error: HubError) -> bool:
    """Whether the Hub could not be asked, or could not answer: what is in the cache will do."""
    status = _status(error)
    return status is None or status == 429 or status >= 500


def sentence(error: BaseException, repo: str, revision: str | None = None, also: str = "") -> str:
    """What went wrong, and what to do about it."""
    from huggingface_hub import constants, errors

    chain, status, place = list(_chain(error)), _status(error), f"{constants.ENDPOINT}/{repo}"

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(each, kinds) for each in chain)

    if has(errors.GatedRepoError):
        return f"{repo} is gated: ask for access at {place}, then {LOGIN}"
    if has(errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; {place}/tree/main lists them"
    if has(errors.RepositoryNotFoundError):
        return (
            f"{repo}: no such repository on the Hub, or a private one that you may not see{also}; "
            f"check the name, or {LOGIN}"
        )
    if has(errors.HFValidationError):
        return f"{repo!r} cannot be a name on the Hub: {_short(chain[-1])}; write org/name"
    if status == 401:
        return f"{repo}: the Hub wants a token, and one that it knows; {LOGIN}"
    if status == 403:
        return (
            f"{repo}: the Hub forbids this to your token; use one that may read {repo}, or write "
            f"it for a push ({constants.ENDPOINT}/settings/tokens), and {LOGIN}"
        )
    if status == 429:
        return f"{repo}: the Hub is asked too often from here; wait some minutes, or {LOGIN}"
    if status is not None and status >= 500:
        return f"{repo}: the Hub has an error of its own ({status}); try again later"
    if status is not None:
        return f"{repo}: the Hub refuses ({status}): {_short(error)}; see {place}"
    if _offline(error):
        switch = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE")
        why = "HF_HUB_OFFLINE is set" if switch else "the Hub cannot be asked"
        return (
            f"{repo}: {why}, and {revision or 'main'} is not whole in the cache; unset "
            f"HF_HUB_OFFLINE, or load it once with a network{also}"
        )
    if any("Timeout" in type(each).__name__ for each in chain):
        return (
            f"{repo}: {constants.ENDPOINT} does not answer in time; try again, or give it longer "
            "by HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT, in seconds"
        )
    if _of_the_line(error):
        return (
            f"{repo}: {constants.ENDPOINT} cannot be reached, or the line was cut, and it is not "
            f"whole in the cache{also}; check the network and try again ({_short(chain[-1])})"
        )
    return f"{repo}: the Hub's client failed: {type(error).__name__}: {_short(error)}; try again"


def _short(error: BaseException) -> str:
    """An error's text in one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"

"""Turns exceptions of the Hub's client into one sentence that also says what to do."""

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
    """Return ``call()``; it is retried after an error of the server or of the connection.

    Args:
        also: added to the message if the repository is not found: what else was looked for.
        waits: seconds to wait before each retry.

    Raises:
        HubError: one sentence for any exception of the client.
    """
    for wait in (*waits, None):
        try:
            return call()
        except FewLabelsError:
            raise
        except Exception as error:  # the client has dozens of kinds, those of its transport too
            if wait is None or not _is_transient(error):
                raise HubError(describe_hub_error(error, repo, revision, also)) from error
            time.sleep(wait)
    raise AssertionError("not reached")


def _walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _http_status(error: BaseException) -> int | None:
    """The HTTP status of the server's answer; None if it did not answer."""
    for each in _walk_causes(error):
        code = getattr(getattr(each, "response", None), "status_code", None)
        if code is not None:
            return int(code)
    return None


def _is_offline(error: BaseException) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    chain = list(_walk_causes(error))
    forced = any(isinstance(each, OfflineModeIsEnabled) for each in chain)
    return forced or (
        isinstance(chain[-1], LocalEntryNotFoundError) and _http_status(error) is None
    )


def _is_connection_error(error: BaseException) -> bool:
    """Whether the connection failed; the client uses httpx, before its version 1 requests."""
    modules = {type(each).__module__.partition(".")[0].rstrip("2") for each in _walk_causes(error)}
    return bool(modules & {"httpx", "httpcore", "requests", "urllib3"})


def _is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed if it is retried soon."""
    status = _http_status(error)
    if status is not None:
        return status >= 500
    return _is_connection_error(error) and not _is_offline(error)


def is_unreachable(error: HubError) -> bool:
    """Whether the Hub was not reached, or answered 429 or 5xx; then the cache may be used."""
    status = _http_status(error)
    return status is None or status == 429 or status >= 500


def describe_hub_error(
    error: BaseException, repo: str, revision: str | None = None, also: str = ""
) -> str:
    """The error message: what went wrong, and what to do about it."""
    from huggingface_hub import constants, errors

    chain, status, place = (
        list(_walk_causes(error)),
        _http_status(error),
        f"{constants.ENDPOINT}/{repo}",
    )

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
        return f"{repo!r} cannot be a name on the Hub: {_shorten_error(chain[-1])}; write org/name"
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
        return f"{repo}: the Hub refuses ({status}): {_shorten_error(error)}; see {place}"
    if _is_offline(error):
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
    if _is_connection_error(error):
        return (
            f"{repo}: {constants.ENDPOINT} cannot be reached, or the line was cut, and it is not "
            f"whole in the cache{also}; check the network and try again "
            f"({_shorten_error(chain[-1])})"
        )
    said = f"{type(error).__name__}: {_shorten_error(error)}"
    return f"{repo}: the Hub's client failed: {said}; try again"


def _shorten_error(error: BaseException) -> str:
    """An error's text in one line, cut after 200 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"

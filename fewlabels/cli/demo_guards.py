"""ASGI middleware of the demo page: who may ask it, how much may be sent, what browsers load."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

HOST = "127.0.0.1"
LARGEST_UPLOAD = 20 * 2**20
"""Bytes of an image that may be dropped on the page."""
LARGEST_BODY = LARGEST_UPLOAD + 2**20
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
READING = ("GET", "HEAD", "OPTIONS")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Closed:
    """Adds a Content-Security-Policy: browsers load from this server only."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message["headers"], policy]
            await send(message)

        await self.app(scope, receive, send_with_policy)


class SameOrigin:
    """Refuses what another web page makes a browser send; programs name no page, and may send."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("method") in READING or _is_own(scope):
            await self.app(scope, receive, send)
        else:
            await _refuse(403, "Another page may not send to this one.", scope, receive, send)


class LimitedBody:
    """Refuses a request of more bytes than an image may have, by whatever route it is sent."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        from starlette.exceptions import HTTPException

        told = f"At most {LARGEST_UPLOAD // 2**20} MB can be sent."
        if any(
            not size.isdecimal() or len(size) > 12 or int(size) > LARGEST_BODY
            for size in _read_header(scope, "content-length")
        ):
            return await _refuse(413, told, scope, receive, send)
        seen = 0

        async def receive_within_limit() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > LARGEST_BODY:  # sent without saying how much it is
                raise HTTPException(413, told)
            return message

        await self.app(scope, receive_within_limit, send)


def build_middleware() -> list[Any]:
    """The page's middleware, outermost first; of hosts only this machine's local names work.

    Checking the host name stops DNS rebinding: a web page's own name pointed at this machine.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    hosts = [HOST, "localhost"]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    return [Middleware(Closed), trusted, Middleware(SameOrigin), Middleware(LimitedBody)]


def _is_own(scope: Message) -> bool:
    """Whether a request comes from a page of this server, or from no page."""
    hosts = _read_header(scope, "host")
    own = all(origin.partition("://")[2] in hosts for origin in _read_header(scope, "origin"))
    return own and "cross-site" not in _read_header(scope, "sec-fetch-site")


def _read_header(scope: Message, name: str) -> list[str]:
    """The values of a header, of which there should be at most one."""
    return [
        value.decode("latin-1").lower()
        for key, value in scope.get("headers", ())
        if key.decode("latin-1").lower() == name
    ]


async def _refuse(status: int, told: str, scope: Message, receive: Receive, send: Send) -> None:
    from starlette.responses import PlainTextResponse

    await PlainTextResponse(told, status)(scope, receive, send)

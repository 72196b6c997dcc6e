"""Every request passes through here: it gets an id, its answer gets headers, and the log gets one line.

The line names the route's template and never the path, the query or the body: ids of documents and questions are
the tenant's own (promise P8).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producers.gateway.metrics import GatewayMetrics
from producers.gateway.problems import problem_of, unexpected
from schemas.errors import BadInput

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
NO_STORE = (b"cache-control", b"no-store")
REQUEST_ID = "[A-Za-z0-9._-]{1,64}"
_REQUEST_ID = re.compile(REQUEST_ID.encode())
_log = structlog.get_logger("penstock.gateway")


class Exchange:
    """The outermost layer of the gateway that is ours."""

    def __init__(self, app: ASGIApp, *, metrics: GatewayMetrics) -> None:
        """Wrap an application."""
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["penstock.request_id"] = request_id
        answer = _Answer(send, request_id, scope)
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                if _readable(scope):
                    await self.app(scope, receive, answer)
                else:
                    error = BadInput(
                        "the address holds bytes that are not percent-encoded UTF-8", field="path"
                    )
                    await problem_of(error, request_id)(scope, receive, answer)
            except Exception as error:  # noqa: BLE001 - the last place where it can become an answer
                refusal = unexpected(error, request_id)
                if answer.status is None:
                    await refusal(scope, receive, answer)
            finally:
                self._record(scope, answer, time.perf_counter() - started)

    def _record(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", None) or "unknown"
        self.metrics.request(scope["method"], route, answer.status or 0, seconds)
        _log.info(
            "gateway.request",
            method=scope["method"],
            route=route,
            status=answer.status,
            ms=round(seconds * 1000, 1),
            bytes_out=answer.size,
        )


class _Answer:
    """Passes an answer on, with our headers on it."""

    def __init__(self, send: Send, request_id: str, scope: Scope) -> None:
        self.status: int | None = None
        self._scope = scope
        self.size = 0
        self._send = send
        self._request_id = request_id.encode()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = list(message.get("headers", ()))
            names = {name for name, _ in headers}
            # Those of the key's rate, once it is known who calls.
            headers += [
                *HEADERS,
                (b"x-request-id", self._request_id),
                *self._scope.get("penstock.headers", ()),
            ]
            if b"cache-control" not in names:
                headers.append(NO_STORE)
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await self._send(message)


def _request_id(scope: MutableMapping[str, Any]) -> str:
    """The caller's, when it is harmless, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return os.urandom(16).hex()


def _readable(scope: MutableMapping[str, Any]) -> bool:
    """Whether the path is UTF-8 that PostgreSQL can keep: servers replace what is not, and ids would collide."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if b"%" not in raw:
        return raw.isascii()
    try:
        return "\x00" not in unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        return False

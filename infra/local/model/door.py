"""Every request under /v1 passes through here: host, key, fault, count, endpoint, delay, reply.

The faults that need no knowledge of the endpoint happen here, before the work (`refusals`) or to its reply.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from infra.local.model.calls import Calls, Count
from infra.local.model.errors import ApiError, no_key, wrong_key
from infra.local.model.faults import REFUSALS, SILENCES, Fault, Faults
from infra.local.model.latency import Latency
from infra.local.model.refusals import refusal, reply_lost
from infra.local.model.reply import Ask, Reply, Usage
from infra.local.model.sender import Sender

LARGEST_BODY = 256 * 1024 * 1024
REQUESTS_PER_MINUTE = 10_000
TOKENS_PER_MINUTE = 10_000_000

_log = structlog.get_logger()

Handler = Callable[[Ask], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Desk:
    """What all doors share."""

    key: str
    faults: Faults
    calls: Calls
    latency: Latency
    closing: asyncio.Event


class Door:
    """The ASGI app of one endpoint."""

    def __init__(self, endpoint: str, handler: Handler, desk: Desk) -> None:
        self.endpoint = endpoint
        self._handler = handler
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        visit = _Visit(self.endpoint, self._handler, self._desk, Request(scope, receive, send), send)
        await visit.run()


class _Visit:
    """One request on its way through the door."""

    def __init__(self, endpoint: str, handler: Handler, desk: Desk, request: Request, send: Send) -> None:
        self._endpoint = endpoint
        self._handler = handler
        self._desk = desk
        self._request = request
        self._started = time.monotonic()
        self._fault: Fault | None = None
        self._usage = Usage()
        self._sender = Sender(request, send, desk.closing)

    async def run(self) -> None:
        """Count the request in, answer it, count it out."""
        count = self._desk.calls.arrived(self._endpoint)
        status: int | None = None
        try:
            status = await self._answer(count)
        except ClientDisconnect:
            status = None
        except Exception:  # noqa: BLE001 - the last place that can answer; logged with its traceback
            # A fault of this server: the caller gets an error of the usual shape, the log gets the reason.
            _log.exception("model.request_failed", endpoint=self._endpoint)
            broken = ApiError(500, "The local model server failed; its log says why.", kind="server_error")
            status = await self._sender.whole(Reply(body=broken.body(), status=500), self._headers())
        finally:
            kind = self._fault.kind if self._fault else None
            self._desk.calls.finished(
                count, self._endpoint, started=self._started, status=status, fault=kind, usage=self._usage
            )

    async def _answer(self, count: Count) -> int | None:
        try:
            body = await self._checked_body()
            self._fault = self._desk.faults.take(self._endpoint, lambda: input_text(body))
            if self._fault is not None and self._fault.kind in REFUSALS:
                raise refusal(self._fault)
            if self._fault is not None and self._fault.kind in SILENCES:
                await self._be_silent(self._fault)
                return None
            reply = await self._handler(Ask(self._request, body, self._fault))
            self._usage = reply.usage
            self._desk.calls.served(count, reply.usage)
            if self._fault is not None and self._fault.kind == "500_after":
                raise reply_lost()
        except ApiError as error:
            reply = Reply(body=error.body(), status=error.status, headers=error.headers)
            return await self._sender.whole(reply, self._headers())
        return await self._deliver(reply)

    async def _checked_body(self) -> bytes:
        given = self._request.headers.get("authorization", "")
        scheme, _, key = given.partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise no_key()
        if not hmac.compare_digest(key.strip().encode(), self._desk.key.encode()):
            raise wrong_key()
        parts: list[bytes] = []
        size = 0
        async for part in self._request.stream():
            size += len(part)
            if size > LARGEST_BODY:
                raise ApiError(
                    413, "The request is larger than this server accepts.", code="request_too_large"
                )
            parts.append(part)
        return b"".join(parts)

    async def _be_silent(self, fault: Fault) -> None:
        if fault.kind == "hang":
            await self._sender.pause(fault.seconds)
        await self._sender.drop()

    async def _deliver(self, reply: Reply) -> int | None:
        delay = self._desk.latency.of(self._endpoint)
        if delay.seconds and not await self._sender.pause(delay.seconds):
            return None
        kind = self._fault.kind if self._fault else None
        if kind == "drop_reply" or (kind == "hang_reply" and reply.frames is None):
            if kind == "hang_reply" and self._fault is not None:
                await self._sender.pause(self._fault.seconds)
            await self._sender.drop()
            return None
        if reply.frames is not None:
            return await self._sender.stream(
                reply, self._headers(), per_token=delay.per_token, fault=self._fault
            )
        if kind == "cut":
            await self._sender.half(reply, self._headers())
            return None
        if kind == "malformed":
            # Status and headers as usual; the JSON breaks off in its middle.
            reply = Reply(body=reply.body[: len(reply.body) // 2], status=reply.status, media=reply.media)
        return await self._sender.whole(reply, self._headers())

    def _headers(self) -> Mapping[str, str]:
        took = (time.monotonic() - self._started) * 1000
        return {
            "x-request-id": f"req_{time.monotonic_ns():x}",
            "openai-version": "2020-10-01",
            "openai-organization": "local",
            "openai-processing-ms": f"{took:.0f}",
            "x-ratelimit-limit-requests": str(REQUESTS_PER_MINUTE),
            "x-ratelimit-remaining-requests": str(REQUESTS_PER_MINUTE - 1),
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-limit-tokens": str(TOKENS_PER_MINUTE),
            "x-ratelimit-remaining-tokens": str(TOKENS_PER_MINUTE - self._usage.prompt_tokens),
            "x-ratelimit-reset-tokens": "6ms",
        }


def input_text(body: bytes) -> str:
    """What a fault's `match` looks at: the strings of a JSON body, one a line, or the body as text."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")
    found: list[str] = []
    _strings(value, found)
    return "\n".join(found)


def _strings(value: object, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, list):
        for item in value:
            _strings(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _strings(item, found)

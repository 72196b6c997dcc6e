"""Replies pass through here on their way to the socket: whole, as a stream, or broken off where a fault says so."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.types import Send

from infra.local.model.connection import hang_up, left
from infra.local.model.faults import Fault
from infra.local.model.reply import Reply

_BROKEN_FRAME = b'data: {"id": "chatcmpl-broken", "choices": [{"delta": {"content": "\n\n'


class Sender:
    """Sends the reply to one request."""

    def __init__(self, request: Request, send: Send, closing: asyncio.Event) -> None:
        self._request = request
        self._send = send
        self._closing = closing

    async def whole(self, reply: Reply, headers: Mapping[str, str]) -> int:
        """Send a whole reply; returns its status."""
        await self._start(reply, headers, len(reply.body))
        await self._send({"type": "http.response.body", "body": reply.body})
        return reply.status

    async def half(self, reply: Reply, headers: Mapping[str, str]) -> None:
        """Announce the whole length, send half of it and hang up."""
        await self._start(reply, headers, len(reply.body))
        await self._send(
            {"type": "http.response.body", "body": reply.body[: len(reply.body) // 2], "more_body": True}
        )
        await self.drop()

    async def stream(
        self, reply: Reply, headers: Mapping[str, str], *, per_token: float, fault: Fault | None
    ) -> int | None:
        """Send server-sent events; None when the client left or a fault ended the stream early."""
        frames = reply.frames or ()
        kind = fault.kind if fault else None
        await self._start(reply, headers, None)
        if kind == "slow_first_token" and fault is not None and not await self.pause(fault.seconds):
            return None
        breaks = len(frames) // 2 if kind in {"cut", "malformed", "hang_reply"} else None
        gone = asyncio.ensure_future(left(self._request))
        try:
            for n, frame in enumerate(frames):
                if n == breaks:
                    await self._break(fault)
                    return None
                if (n and per_token and await self._waited(gone, per_token)) or gone.done():
                    return None
                await self._send({"type": "http.response.body", "body": frame, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
        return reply.status

    async def pause(self, seconds: float | None) -> bool:
        """Wait, for ever when `seconds` is None, but never longer than the client or the server stays.

        Returns:
            Whether the client is still there and the server is not closing.
        """
        gone = asyncio.ensure_future(left(self._request))
        try:
            return not await self._waited(gone, seconds)
        finally:
            gone.cancel()

    async def _waited(self, gone: asyncio.Future[None], seconds: float | None) -> bool:
        """Whether the client left, or the server began to close, within the time."""
        closing = asyncio.ensure_future(self._closing.wait())
        watched: set[asyncio.Future[Any]] = {gone, closing}
        try:
            done, _ = await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
        return bool(done)

    async def _break(self, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "malformed":
            await self._send({"type": "http.response.body", "body": _BROKEN_FRAME, "more_body": True})
            await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
            return
        if fault is not None and fault.kind == "hang_reply":
            await self.pause(fault.seconds)
        await self.drop()

    async def drop(self) -> None:
        """Hang up, and return when the connection is gone: uvicorn would otherwise answer in our place."""
        hang_up(self._request)
        await left(self._request)

    async def _start(self, reply: Reply, headers: Mapping[str, str], length: int | None) -> None:
        named = {"content-type": reply.media, **headers, **reply.headers}
        if length is not None:
            named["content-length"] = str(length)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
        await self._send({"type": "http.response.start", "status": reply.status, "headers": raw})

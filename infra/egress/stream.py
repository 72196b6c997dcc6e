"""The bytes of one connection pass through here, between httpcore2's HTTP/1.1 and the event loop's own transport.

httpcore2's usual streams go through anyio, whose cancel scopes cost more per message than everything else on the way
(measured: half of a delivery's time). Writes are held back until the answer is wanted, so that a request's head and
body leave as one packet.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import Any, Self, cast

import httpcore2

_HELD = 64 * 1024
"""Bytes that are held back at most, and bytes after which the other side is asked to wait."""


class Line(httpcore2.AsyncNetworkStream, asyncio.Protocol):
    """One connection; its deadlines are the caller's (`Egress.request`), so timeouts given here are not kept."""

    def __init__(self) -> None:
        """Not connected yet; use `connect`."""
        self._transport: asyncio.Transport
        self._held = bytearray()
        self._came = bytearray()
        self._over = False
        self._failure: Exception | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._full = self._paused = False

    @classmethod
    async def connect(cls, address: str, port: int, timeout: float | None) -> Self:
        """Connect to an address, which is not looked up.

        Raises:
            TimeoutError, OSError: there was no connection.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            _, line = await loop.create_connection(cls, address, port)
        return line

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, at most so many bytes; nothing once the other side has hung up."""
        del timeout
        if self._held:
            await self._flush()
        while not self._came:
            if self._failure is not None:
                raise httpcore2.ReadError(str(type(self._failure).__name__)) from self._failure
            if self._over:
                return b""
            self._wanted = asyncio.get_running_loop().create_future()
            try:
                await self._wanted
            finally:
                self._wanted = None
        part = bytes(self._came[:max_bytes])
        del self._came[:max_bytes]
        if self._paused and len(self._came) < _HELD:
            self._paused = False
            self._transport.resume_reading()
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Hold the bytes until an answer is wanted, or until they are many."""
        del timeout
        self._held += buffer
        if len(self._held) > _HELD:
            await self._flush()

    async def aclose(self) -> None:
        """End the connection at once; nothing that matters is under way any more."""
        self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Put TLS on top; the connection stays the same."""
        loop = asyncio.get_running_loop()
        await self._flush()
        try:
            async with asyncio.timeout(timeout):
                transport = await loop.start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError:
            self._transport.abort()
            raise httpcore2.ConnectTimeout from None
        except OSError as error:  # ssl.SSLError is one
            self._transport.abort()
            raise httpcore2.ConnectError(error) from error
        except BaseException:
            self._transport.abort()
            raise
        # None when the connection was lost at this very moment.
        if transport is None:
            raise httpcore2.ConnectError(self._failure or ConnectionResetError())
        self._transport = transport
        return self

    def get_extra_info(self, info: str) -> Any:
        """What is known of the connection; an idle one that is readable was closed by the other side, or is confused."""
        if info == "is_readable":
            # The loop may not have come round to tell us yet.
            return bool(self._came) or self._over or self._failure is not None or self._has_news()
        return self._transport.get_extra_info(info)

    def _has_news(self) -> bool:
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def _flush(self) -> None:
        if self._failure is not None or self._over:
            self._held.clear()
            raise httpcore2.WriteError
        self._transport.write(bytes(self._held))
        self._held.clear()
        while self._full:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's is no subclass of asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep the bytes, and ask the other side to wait when they are many."""
        self._came += data
        if len(self._came) > _HELD and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        _wake(self._wanted)

    def eof_received(self) -> bool:
        """The other side says no more; the transport closes by itself."""
        self._over = True
        _wake(self._wanted)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._over, self._failure, self._full = True, exc, False
        _wake(self._wanted)
        _wake(self._room)

    def pause_writing(self) -> None:
        """The other side does not keep up."""
        self._full = True

    def resume_writing(self) -> None:
        """It does again."""
        self._full = False
        _wake(self._room)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)

"""One connection to a model API: a request's bytes go out here, and its reply's head and body come back as they arrive."""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import Self, cast

from infra.llm_framing import Head, NotHttp, ReplyReader

HELD = 256 * 1024
"""Bytes of a body after which the other side is asked to wait until they are read."""


class Line(asyncio.Protocol):
    """A connection; one request at a time.

    Attributes:
        idle_since: when the last reply was complete, by the loop's clock.
    """

    def __init__(self, timeout: float) -> None:
        """Not connected yet; use `connect`.

        Args:
            timeout: seconds between two pieces of a reply.
        """
        self.idle_since = 0.0
        self._timeout = timeout
        self._transport: asyncio.Transport
        self._reader = ReplyReader()
        self._failure: Exception | None = None
        self._over = self._paused = False
        self._wanted: asyncio.Future[None] | None = None

    @classmethod
    async def connect(
        cls, host: str, port: int, tls: ssl.SSLContext | None, *, dial: float, timeout: float
    ) -> Self:
        """Connect to a server.

        Raises:
            TimeoutError, OSError: there was no connection within `dial` seconds.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(dial):
            _, line = await loop.create_connection(
                lambda: cls(timeout), host, port, ssl=tls, server_hostname=None if tls is None else host
            )
        return line

    @property
    def fresh(self) -> bool:
        """Whether another request may be sent: the last reply is complete, and the other side has not hung up."""
        if self._over or self._failure is not None or not self._reader.over or not self._reader.reusable:
            return False
        # The loop may not have come round to tell us yet.
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    async def ask(self, request: bytes) -> Head:
        """Send a request and wait for the head of its reply.

        Raises:
            TimeoutError, OSError: there was none.
        """
        self._reader = ReplyReader()
        self._resume()
        self._transport.write(request)
        while (head := self._reader.head) is None:
            await self._news()
        return head

    async def part(self, rest: float = 0.0) -> bytes:
        """What has come of the body; nothing at its end.

        Args:
            rest: seconds for which what trickles in is left to gather, unread, before it is looked at.

        Raises:
            TimeoutError, OSError: the rest of it does not come.
        """
        if rest and not self._reader.over and not self._over:
            self._pause()
            await asyncio.sleep(rest)
        while not self._reader.body and not self._reader.over:
            self._resume()
            await self._news()
        return self._reader.take()

    async def whole(self) -> bytes:
        """All of the body.

        Raises:
            TimeoutError, OSError: as for `part`.
        """
        parts: list[bytes] = []
        while part := await self.part():
            parts.append(part)
        return b"".join(parts)

    def hang_up(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    async def _news(self) -> None:
        """Wait for what comes next.

        Raises:
            TimeoutError: nothing came within the timeout.
            OSError: nothing will.
        """
        if self._failure is not None:
            raise self._failure
        if self._over:
            if self._reader.hang_up():
                return
            raise ConnectionResetError("the connection was cut")
        loop = asyncio.get_running_loop()
        self._wanted = wanted = loop.create_future()
        late = loop.call_later(self._timeout, _end, wanted)
        try:
            await wanted
        finally:
            late.cancel()
            self._wanted = None

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's is no subclass of asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read the bytes, and ask the other side to wait when they are many."""
        try:
            self._reader.feed(data)
        except NotHttp as error:
            self._failure = error
        if len(self._reader.body) > HELD:
            self._pause()
        self._wake()

    def eof_received(self) -> bool:
        """The other side says no more; the transport closes by itself."""
        self._over = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._over = True
        if exc is not None and not self._reader.over:
            self._failure = self._failure or exc
        self._wake()


def _end(wanted: asyncio.Future[None]) -> None:
    if not wanted.done():
        wanted.set_exception(TimeoutError())

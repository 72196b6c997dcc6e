"""Connections wait here between requests, by origin; a request takes the newest that is still good, or dials.

httpcore2's own pool looks at every connection that it has at every request, which is most of what a message costs when
there are many receivers. Here a request looks at those of its own origin, newest first.
"""

from __future__ import annotations

import ssl
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import httpcore2

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port."""


@dataclass(slots=True)
class Kept:
    """The connections of one door.

    Attributes:
        backend: dials.
        tls: verifies certificates.
        most: connections that wait at most, of all origins together.
        seconds: for which one waits at most.
    """

    backend: httpcore2.AsyncNetworkBackend
    tls: ssl.SSLContext
    most: int
    seconds: float
    _waiting: defaultdict[Origin, deque[httpcore2.AsyncHTTP11Connection]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    _count: int = 0
    _swept: float = 0.0

    @asynccontextmanager
    async def take(self, origin: Origin, timeout: float) -> AsyncIterator[httpcore2.AsyncHTTP11Connection]:
        """A connection for one request; kept for the next one when the exchange is complete at the end of the block."""
        connection = await self._kept(origin) or await self._dial(origin, timeout)
        try:
            yield connection
        finally:
            if connection.is_idle():
                await self._keep(origin, connection)
            else:
                await connection.aclose()

    async def aclose(self) -> None:
        """Close all that wait."""
        for waiting in self._waiting.values():
            for connection in waiting:
                await connection.aclose()
        self._waiting.clear()
        self._count = 0

    async def _kept(self, origin: Origin) -> httpcore2.AsyncHTTP11Connection | None:
        waiting = self._waiting.get(origin)
        while waiting:
            connection = waiting.pop()
            self._count -= 1
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return None

    async def _dial(self, origin: Origin, timeout: float) -> httpcore2.AsyncHTTP11Connection:
        scheme, host, port = origin
        stream = await self.backend.connect_tcp(host, port, timeout=timeout)
        if scheme == "https":
            stream = await stream.start_tls(self.tls, server_hostname=host, timeout=timeout)
        return httpcore2.AsyncHTTP11Connection(
            httpcore2.Origin(scheme.encode(), host.encode(), port), stream, keepalive_expiry=self.seconds
        )

    async def _keep(self, origin: Origin, connection: httpcore2.AsyncHTTP11Connection) -> None:
        if self._count >= self.most or time.monotonic() - self._swept > self.seconds:
            await self._sweep()
        if self._count >= self.most:
            await connection.aclose()
            return
        self._waiting[origin].append(connection)
        self._count += 1

    async def _sweep(self) -> None:
        """Close what has waited for too long, or what the other side has hung up."""
        self._swept = time.monotonic()
        for origin, waiting in list(self._waiting.items()):
            old = [one for one in waiting if one.has_expired()]
            for connection in old:
                waiting.remove(connection)
                self._count -= 1
                await connection.aclose()
            if not waiting:
                del self._waiting[origin]

"""The bytes of one connection pass through here; the pool asks it at every request whether the other side hung up.

The question is asked of every idle connection, and anyio answers it by collecting all that it knows of the socket
(measured: a third of a delivery's time with fifty idle connections). Here one poll of the file descriptor answers it.
"""

from __future__ import annotations

import select
import ssl
from typing import Any

import httpcore2


class ProbedStream(httpcore2.AsyncNetworkStream):
    """A stream of httpcore2 with a cheap answer to ``is_readable``."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream, descriptor: int) -> None:
        """Wrap a connected stream.

        Args:
            inner: carries the bytes.
            descriptor: the file descriptor of its socket.
        """
        self._inner = inner
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    @classmethod
    def of(cls, inner: httpcore2.AsyncNetworkStream) -> ProbedStream:
        """Wrap a stream that was just connected."""
        return cls(inner, inner.get_extra_info("socket").fileno())

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, at most so many bytes."""
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it."""
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Put TLS on top; the socket stays the same."""
        inner = await self._inner.start_tls(ssl_context, server_hostname, timeout)
        return ProbedStream(inner, self._descriptor)

    def get_extra_info(self, info: str) -> Any:
        """What is known of the connection; an idle one that is readable was closed by the other side."""
        if info == "is_readable":
            return bool(self._poll.poll(0))
        return self._inner.get_extra_info(info)

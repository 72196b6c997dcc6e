"""A webhook receiver in a process of its own: requests come in as fast as they can, and when each came is remembered.

Its only parser counts bytes, so that what is measured is the sender. `/ok/…` answers 204, `/hang/…` never answers.
`GET /seen` returns {id: [seconds, path]}, `GET /counts` {path: requests}, and `GET /forget` empties both.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver(asyncio.Protocol):
    """One connection."""

    def __init__(self, seen: dict[str, tuple[float, str]], counts: Counter[str]) -> None:
        self.seen, self.counts = seen, counts
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the pen."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take all requests that are complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            lower = head.lower()
            size = int(_value(lower, b"content-length:") or 0)
            if len(self._buffer) < end + 4 + size:
                return
            self._buffer = self._buffer[end + 4 + size :]
            path = head.split(b" ", 2)[1].decode()
            self._answer(path, _value(lower, b"webhook-id:").decode())

    def _answer(self, path: str, message: str) -> None:
        if path.startswith("/ok/"):
            self.seen.setdefault(message, (time.time(), path))
            self._transport.write(ANSWER)
            self.counts[path] += 1
        elif path in {"/seen", "/counts", "/forget"}:
            body = json.dumps(self.seen if path == "/seen" else self.counts).encode()
            if path == "/forget":
                self.seen.clear()
                self.counts.clear()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def _value(head: bytes, name: bytes) -> bytes:
    start = head.find(b"\n" + name)
    if start < 0:
        return b""
    start += len(name) + 1
    end = head.find(b"\r", start)
    return head[start : end if end >= 0 else len(head)].strip()


async def serve() -> None:
    """Listen on a free port of loopback and say which, until the one who started it is gone."""
    seen: dict[str, tuple[float, str]] = {}
    counts: Counter[str] = Counter()
    server = await asyncio.get_running_loop().create_server(lambda: Receiver(seen, counts), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve())

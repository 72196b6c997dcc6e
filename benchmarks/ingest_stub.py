"""A model server that knows one thing, and that fast: texts come in, the vectors made for them before go out.

It reads HTTP by hand and answers from ready bytes, so that it is never what a benchmark measures. With a limit it
refuses as OpenAI does: a bucket of requests that refills by the minute, `x-ratelimit-*` headers, 429 with `Retry-After`.

    python benchmarks/ingest_stub.py --port P --corpus FILE.npz [--latency S] [--rpm N]

`GET /stats` tells what was served; `POST /reset` sets it to zero, and with `?latency=S&rpm=N` changes the rules.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import time
from typing import cast
from urllib.parse import parse_qs, urlsplit
from zlib import crc32

import numpy as np
import orjson
import uvloop

_JSON = b"content-type: application/json\r\n"


class Shelf:
    """The ready-made vectors by text, in both encodings."""

    def __init__(self, path: str) -> None:
        """Read texts and vectors from a file that `save` wrote."""
        with np.load(path) as held:
            rows = held["vectors"].astype("<f4")
            texts: list[str] = orjson.loads(held["texts"].tobytes())
        self._rows = rows
        # LlamaIndex sends a text on one line.
        self._at = {text.replace("\n", " "): at for at, text in enumerate(texts)}
        self._base64 = [b'"' + base64.b64encode(row.tobytes()) + b'"' for row in rows]
        self._float: dict[int, bytes] = {}

    def find(self, text: str, *, as_float: bool) -> bytes:
        """The vector of a text as JSON; a text that nobody prepared gets one of the others."""
        at = self._at.get(text.replace("\n", " "))
        if at is None:
            at = crc32(text.encode()) % len(self._base64)
        if not as_float:
            return self._base64[at]
        if at not in self._float:
            self._float[at] = orjson.dumps([float(value) for value in self._rows[at]])
        return self._float[at]


def save(path: str, texts: list[str], rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    """Write what `Shelf` reads."""
    np.savez(path, vectors=rows, texts=np.frombuffer(orjson.dumps(texts), dtype=np.uint8))


class Rules:
    """Latency, limit, and counts."""

    def __init__(self, latency: float, rpm: float) -> None:
        self.reset(latency, rpm)

    def reset(self, latency: float, rpm: float) -> None:
        """Begin anew with a full bucket of one second's requests, as OpenAI's limits are enforced by the second."""
        self.latency, self.rpm = latency, rpm
        self.requests = self.inputs = self.refused = 0
        self.first = self.last = 0.0
        self._full = 0.0

    def admit(self, inputs: int) -> tuple[bool, float, float]:
        """Whether a request is served, how many are left, and how long to wait."""
        now = time.monotonic()
        left, wait = 0.0, 0.0
        if self.rpm:
            each = 60.0 / self.rpm
            begin = max(self._full, now)
            if begin + each > now + max(1.0, 2 * each):
                self.refused += 1
                return False, 0.0, begin + each - now - max(1.0, 2 * each)
            self._full = begin + each
            left = (now + max(1.0, 2 * each) - self._full) // each
        self.requests += 1
        self.inputs += inputs
        self.first, self.last = self.first or now, now
        return True, left, wait

    def stats(self) -> bytes:
        """What was served since the last reset."""
        return orjson.dumps(
            {
                "requests": self.requests,
                "inputs": self.inputs,
                "refused": self.refused,
                "seconds": self.last - self.first,
            }
        )


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests are served one after the other."""

    def __init__(self, shelf: Shelf, rules: Rules) -> None:
        self._shelf, self._rules = shelf, rules
        self._held = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Gather whole requests."""
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._held[:end])
            size = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            if len(self._held) < end + 4 + size:
                return
            body = bytes(self._held[end + 4 : end + 4 + size])
            del self._held[: end + 4 + size]
            self._serve(head.split(b" ", 2)[1].decode(), body)

    def _serve(self, path: str, body: bytes) -> None:
        address = urlsplit(path)
        if address.path == "/stats":
            self._reply(200, self._rules.stats())
        elif address.path == "/reset":
            asked = parse_qs(address.query)
            self._rules.reset(float(asked.get("latency", ["0"])[0]), float(asked.get("rpm", ["0"])[0]))
            self._reply(200, b"{}")
        else:
            self._embed(body)

    def _embed(self, body: bytes) -> None:
        asked = orjson.loads(body)
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        admitted, left, wait = self._rules.admit(len(texts))
        extra = b""
        if self._rules.rpm:
            extra = b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n" % (
                self._rules.rpm,
                left,
            )
        if not admitted:
            said = b'{"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}'
            self._reply(429, said, extra + b"retry-after: %d\r\n" % (int(wait) + 1))
            return
        as_float = asked.get("encoding_format") != "base64"
        parts = [
            b'{"object":"embedding","index":%d,"embedding":' % index
            + self._shelf.find(text if isinstance(text, str) else str(text), as_float=as_float)
            + b"}"
            for index, text in enumerate(texts)
        ]
        tokens = sum(len(text) for text in texts) // 4
        said = b"".join(
            (
                b'{"object":"list","model":"stub","data":[',
                b",".join(parts),
                b'],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (tokens, tokens),
            )
        )
        if self._rules.latency:
            asyncio.get_running_loop().call_later(self._rules.latency, self._reply, 200, said, extra)
        else:
            self._reply(200, said, extra)

    def _reply(self, status: int, body: bytes, extra: bytes = b"") -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(
                b"HTTP/1.1 %d X\r\n%s%scontent-length: %d\r\n\r\n" % (status, _JSON, extra, len(body)) + body
            )


async def serve(port: int, path: str, latency: float, rpm: float) -> None:
    """Serve until the process ends."""
    shelf, rules = Shelf(path), Rules(latency, rpm)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(shelf, rules), "127.0.0.1", port
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--rpm", type=float, default=0.0)
    chosen = parser.parse_args()
    uvloop.run(serve(chosen.port, chosen.corpus, chosen.latency, chosen.rpm))

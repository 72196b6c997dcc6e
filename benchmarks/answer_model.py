"""A model API that takes no time: embeddings by the local model's weights, and 20 tokens that quote a passage.

It stands in for a provider whose own time is subtracted anyway: what it needs for a call it counts by the question that
the call is about, and tells at `/times`. Run as a program it prints its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import base64
import re
import sys
import time
from pathlib import Path
from typing import Any, cast

import orjson
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infra.local.model.vectors import Encoder
from infra.local.processes import LOOPBACK

TOKENS = 20
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_PASSAGE = re.compile(r'<passage id="1"[^>]*>\n(.+?)\n</passage>', re.DOTALL)


class Model(asyncio.Protocol):
    """One connection."""

    def __init__(self, encoder: Encoder, times: dict[str, float]) -> None:
        self._encoder = encoder
        self._times = times
        self._buffer = b""
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        # uvloop's transports are not asyncio's by class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, end)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < size:
                return
            path, body = self._buffer.split(b" ", 2)[1], self._buffer[end + 4 : size]
            self._buffer = self._buffer[size:]
            self._answer(path, body)

    def _answer(self, path: bytes, body: bytes) -> None:
        began = time.perf_counter()
        if path.endswith(b"/times"):
            self._whole(orjson.dumps(self._times))
            self._times.clear()
            return
        asked: dict[str, Any] = orjson.loads(body)
        if path.endswith(b"/embeddings"):
            vectors = self._encoder.embed(asked["input"])
            data = [
                {"object": "embedding", "index": n, "embedding": base64.b64encode(row.tobytes()).decode()}
                for n, row in enumerate(vectors)
            ]
            usage = {"prompt_tokens": 8, "total_tokens": 8}
            self._whole(orjson.dumps({"object": "list", "data": data, "model": "m", "usage": usage}))
            self._count(asked["input"][0], began)
        else:
            content = asked["messages"][-1]["content"]
            self._task = asyncio.ensure_future(self._stream(_words(content)))
            self._count(content.rpartition("Question: ")[2], began)

    def _count(self, question: str, began: float) -> None:
        self._times[question] = self._times.get(question, 0.0) + time.perf_counter() - began

    def _whole(self, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    async def _stream(self, words: list[str]) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for word in words:
            self._event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            # A provider's tokens come one by one.
            await asyncio.sleep(0.001)
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 900, "completion_tokens": TOKENS, "total_tokens": 900 + TOKENS}
        self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    def _event(self, event: dict[str, Any]) -> None:
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "local-chat"}
        self._chunk(b"data: " + orjson.dumps({**head, **event}) + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


def _words(content: str) -> list[str]:
    """The beginning of the first passage, with its citation, as so many tokens."""
    found = _PASSAGE.search(content)
    words = (found[1] if found else "nothing was supplied").split()[: TOKENS - 1]
    words += ["so"] * (TOKENS - 1 - len(words))
    return [f"{word} " for word in words] + ["[1]."]


async def serve() -> None:
    """Print the port; serve until the input ends."""
    encoder, times = Encoder.load(), dict[str, float]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Model(encoder, times), LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve())

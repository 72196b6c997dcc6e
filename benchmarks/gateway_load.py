"""Events for the gateway's benchmark are made here, and sent over plain sockets, so that the sender costs little."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
TEXT = "The Rhine rises in the Swiss Alps and flows north into the sea. "


def make_events(count: int) -> list[dict[str, Any]]:
    """Examples as an upstream would record them; about 500 bytes each, every one of its own."""
    run = uuid4().hex
    return [
        {
            "specversion": "1.0",
            "id": f"{run}-{number}",
            "source": "https://upstream.example/crm",
            "type": "example.recorded",
            "time": "2026-11-01T12:00:00Z",
            "data": {
                "dataset": "rivers",
                "messages": [
                    {"role": "user", "content": f"Where does river number {number} rise?"},
                    {"role": "assistant", "content": TEXT * 3},
                ],
            },
        }
        for number in range(count)
    ]


def requests(events: Sequence[dict[str, Any]], group: int, key: str) -> list[bytes]:
    """The bytes of HTTP requests that publish these events, alone or in groups."""
    kind = SINGLE if group == 1 else BATCH
    bodies = [
        json.dumps(events[start] if group == 1 else events[start : start + group]).encode()
        for start in range(0, len(events), group)
    ]
    head = (
        f"POST /v1/events HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\n"
        "content-length: "
    ).encode()
    return [head + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies]


async def send(port: int, wire: Sequence[bytes], connections: int) -> float:
    """Send every request and wait for each answer, which must be 202; returns seconds."""
    waiting = iter(wire)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202"), head
            length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
            assert b'"rejected"' not in body, body
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return time.perf_counter() - began

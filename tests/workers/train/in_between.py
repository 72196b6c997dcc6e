"""A proxy before a trainer that we did not write: every call goes through here, and what is asked for becomes of one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.infra.raw_server import Exchange, raw_server

CREATE = "POST /v1/fine_tuning/jobs HTTP/"
FAULTS = ("drop_reply", "500", "500_after", "429", "hang", "hang_reply", "malformed")
"""What may become of the call that creates the job; with ``_after``, ``_reply`` and ``malformed`` there is a job."""
DONE_FIRST = frozenset({"drop_reply", "500_after", "hang_reply", "malformed"})
_KEEP_ALIVE = re.compile(r"^connection:[^\r\n]*", re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class InBetween:
    """Where the proxy listens, and what becomes of the next call that creates a job."""

    base_url: str = ""
    fault: str | None = None
    created: int = 0
    hit: list[str] = field(default_factory=list)


@asynccontextmanager
async def in_between(port: int) -> AsyncIterator[InBetween]:
    """Stand before a server on loopback until the block ends."""
    proxy = InBetween()

    async def script(exchange: Exchange) -> None:
        fault = None
        if exchange.head.startswith(CREATE):
            proxy.created += 1
            fault, proxy.fault = proxy.fault, None
        if fault is None:
            await exchange.say(await passed_on(exchange, port))
            return
        proxy.hit.append(fault)
        if fault in DONE_FIRST:
            await passed_on(exchange, port)
        await _harmed(exchange, fault)

    async with raw_server(script) as server:
        proxy.base_url = f"http://127.0.0.1:{server.port}/v1"
        yield proxy


async def passed_on(exchange: Exchange, port: int) -> bytes:
    """What the server says to a request, to its last byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_KEEP_ALIVE.sub("connection: close", exchange.head).encode("latin-1") + exchange.body)
        return await reader.read()
    finally:
        writer.close()


async def _harmed(exchange: Exchange, fault: str) -> None:
    if fault in {"500", "500_after"}:
        await exchange.reply(500, b'{"error": {"message": "harmed", "type": "server_error"}}')
    elif fault == "429":
        body = (
            b'{"error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}'
        )
        await exchange.reply(429, body, retry_after="1")
    elif fault == "malformed":
        await exchange.reply(200, b'{"id": "ftjob-', content_type="application/json")
    elif fault == "drop_reply":
        raise ConnectionResetError
    else:
        await asyncio.Event().wait()  # until the client hangs up or the test ends

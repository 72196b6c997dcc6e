"""An answer's events pass through here from its Redis stream to a client as server-sent events, while they are written.

Made by hand and not with sse-starlette, which replaces a method of uvicorn's server when it is imported and looks for
signals that are not its own (docs/decisions/0009-gateway.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any
from uuid import UUID

import orjson
import structlog
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import StreamingResponse

from infra.answer_stream import StreamEvent, follow
from infra.answers import finished_answer
from producers.gateway.resources import Gateway
from schemas.states import AnswerState

MEDIA_TYPE = "text/event-stream"
HEARTBEAT = 10.0
"""Seconds of silence after which a comment keeps proxies from closing the connection."""
RETRY_MS = 1000
_log = structlog.get_logger("penstock.gateway")


def wants_stream(request: Request) -> bool:
    """Whether the caller asked for server-sent events."""
    return any(MEDIA_TYPE in value.lower() for value in request.headers.getlist("accept"))


def stream_answer(gateway: Gateway, tenant_id: str, query_id: UUID, after: str | None) -> StreamingResponse:
    """Stream an answer from its beginning, or after the last event that the client has seen."""
    return StreamingResponse(
        _frames(gateway, tenant_id, query_id, after),
        media_type=MEDIA_TYPE,
        headers={"location": f"/v1/queries/{query_id}", "x-accel-buffering": "no"},
    )


async def _frames(
    gateway: Gateway, tenant_id: str, query_id: UUID, after: str | None
) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    async with aclosing(_events(gateway, tenant_id, query_id, after)) as events:
        stopping = asyncio.create_task(gateway.stopping.wait())
        waiting: asyncio.Task[StreamEvent | None] | None = None
        try:
            while True:
                waiting = waiting or asyncio.create_task(_next(events))
                await asyncio.wait(
                    {waiting, stopping}, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED
                )
                if waiting.done():
                    event, waiting = waiting.result(), None
                    if event is None:
                        return
                    yield frame(event)
                elif stopping.done():
                    # The client comes back with Last-Event-ID, to another process.
                    return
                else:
                    yield b": still here\n\n"
        finally:
            tasks: list[asyncio.Task[Any]] = [task for task in (waiting, stopping) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _next(events: AsyncIterator[StreamEvent]) -> StreamEvent | None:
    return await anext(events, None)


async def _events(
    gateway: Gateway, tenant_id: str, query_id: UUID, after: str | None
) -> AsyncGenerator[StreamEvent]:
    async def final() -> Mapping[str, Any] | None:
        return await finished_answer(gateway.database, tenant_id, query_id)

    try:
        async for event in follow(gateway.redis, str(query_id), after, final=final):
            yield event
    except (RedisError, OSError) as error:
        _log.warning(
            "gateway.stream_lost", error=type(error).__name__, next_step="waits for the whole answer"
        )
        while (answer := await final()) is None:
            await gateway.ends.wait(tenant_id, query_id, HEARTBEAT)
        kind = "error" if answer["status"] == AnswerState.FAILED else "done"
        yield StreamEvent("0-0", kind, answer)


def frame(event: StreamEvent) -> bytes:
    """One event on the wire; its data is one line of JSON."""
    data = orjson.dumps(event.data, default=str)
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.id.encode(), event.event.encode(), data)

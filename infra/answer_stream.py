"""A worker's tokens pass through here to whoever follows an answer: over a Redis stream per attempt, which nobody trusts.

    penstock:v1:answer:{query}              the number of the attempt that writes now; INCR begins another
    penstock:v1:answer:{query}:{attempt}    its events: retrieved, token, citation, finished

Every key has a time to live. Redis only says when to look: that an answer is finished, and what it is, is asked of the
database, so an emptied Redis, a lost lease or a dead worker delays a follower and never misleads it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from infra.answer_stops import cancel_key
from infra.queue_keys import PREFIX

TTL = 3600
"""Seconds for which streamed tokens are kept."""
PATIENCE = 2.0
"""Seconds that a worker waits for Redis at the beginning and at the end of an attempt."""
PROBES = (0.5, 1.0, 2.0, 5.0)
"""Seconds without news after which the database is asked; the last one repeats."""
LINGER = 0.02
"""Seconds for which what may wait lets something else leave with it: less than somebody notices."""
COMMIT_WAITS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between looks for a result whose commit was announced."""

Final = Callable[[], Awaitable[Mapping[str, Any] | None]]
"""Reads the answer from the database: the finished one, or None while it is not."""

_log = structlog.get_logger("penstock.answer_stream")


def pointer_key(query_id: str) -> str:
    """Counts attempts; its value names the one that writes. Expires an hour after the last attempt began."""
    return f"{PREFIX}answer:{query_id}"


def stream_key(query_id: str, attempt: int) -> str:
    """The events of one attempt. Expires an hour after its first event."""
    return f"{PREFIX}answer:{query_id}:{attempt}"


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One server-sent event of an answer.

    Attributes:
        id: `attempt-n`, what a client sends back as Last-Event-ID.
        event: retrieved, token, citation, restart, done or error.
    """

    id: str
    event: str
    data: Mapping[str, Any]


class AnswerWriter:
    """Writes the events of one attempt in their order; what comes while a write is under way leaves with the next one.

    Nobody waits for Redis before `flush`. When it is away the answer goes on without its stream.
    """

    def __init__(self, client: redis.asyncio.Redis, query_id: str) -> None:
        """Prepare; `begin` opens an attempt."""
        self._client = client
        self._query_id = query_id
        self._attempt = 0
        self._written = 0
        self._waiting: list[tuple[str, Mapping[str, Any]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None

    async def begin(self) -> bool:
        """Begin an attempt: followers of an earlier one are told to start over.

        Returns:
            Whether somebody asked to stop.
        """
        await self.flush()
        self._waiting.clear()
        self._written = 0
        try:
            async with asyncio.timeout(PATIENCE), self._client.pipeline(transaction=True) as pipe:
                pipe.incr(pointer_key(self._query_id))
                pipe.expire(pointer_key(self._query_id), TTL)
                pipe.exists(cancel_key(self._query_id))
                attempt, _, asked = await pipe.execute()
        except (RedisError, TimeoutError) as error:
            self._gone(type(error).__name__)
            return False
        self._attempt = int(attempt)
        return bool(asked)

    def write(self, event: str, data: Mapping[str, Any], *, later: bool = False, soon: bool = False) -> None:
        """Append one event; `later` lets it leave with whatever comes next, `soon` for a moment."""
        if not self._attempt:
            return
        self._waiting.append((event, data))
        if soon:
            self._due = self._due or asyncio.get_running_loop().call_later(LINGER, self._start)
        elif not later:
            self._start()

    def _start(self) -> None:
        """Begin to send, unless that is under way."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._sending is None and self._waiting:
            self._sending = asyncio.create_task(self._send())

    async def flush(self) -> None:
        """Wait until everything is written, for a moment at most."""
        if self._due is not None:
            self._start()
        if self._sending is not None:
            _, late = await asyncio.wait([self._sending], timeout=PATIENCE)
            if late:
                self._gone("TimeoutError")

    async def _send(self) -> None:
        """Write what is waiting, in one round trip, until nothing is."""
        try:
            while self._attempt and self._waiting:
                events, self._waiting = self._waiting, []
                await self._append(events)
        except RedisError as error:
            self._gone(type(error).__name__)
        finally:
            self._sending = None

    async def _append(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        key = stream_key(self._query_id, self._attempt)
        first = self._written + 1
        self._written += len(events)
        entries: list[tuple[str, dict[Any, Any]]] = [
            (f"{n}-0", {"event": event, "data": orjson.dumps(data)})
            for n, (event, data) in enumerate(events, first)
        ]
        if len(entries) == 1 and first > 1:
            [(entry_id, fields)] = entries
            await self._client.xadd(key, fields, id=entry_id)
            return
        async with self._client.pipeline(transaction=True) as pipe:
            for entry_id, fields in entries:
                pipe.xadd(key, fields, id=entry_id)
            pipe.expire(key, TTL)
            await pipe.execute()

    def _gone(self, error: str) -> None:
        self._attempt = 0
        self._waiting.clear()
        _log.warning("answer_stream.redis_away", error=error, next_step="the answer is not streamed")


async def forget(client: redis.asyncio.Redis, query_id: str) -> None:
    """Delete what was streamed of an answer; a further attempt streams anew, under its own number.

    Raises:
        RedisError: Redis is away.
    """
    attempts = int(await client.get(pointer_key(query_id)) or 0)
    await client.delete(*(stream_key(query_id, attempt) for attempt in range(1, attempts + 2)))


async def follow(
    client: redis.asyncio.Redis, query_id: str, after: str | None, *, final: Final
) -> AsyncIterator[StreamEvent]:
    """Relay an answer's events as they are written, until it is finished.

    Args:
        client: a Redis client; one connection is held while waiting.
        query_id: the ledger's id of the question.
        after: the last event that the client has seen (`attempt-n`), or None.
        final: reads the finished answer.

    Yields:
        Events after `after`. When the attempt changed in between, `restart` comes first and the client discards what
        it has. The last one is `done`, or `error` when the answer failed; its data is what `final` returned.

    Raises:
        RedisError: Redis is away; the caller may poll `final` instead.
    """
    attempt, seen = _position(after)
    told = after is not None
    silent_since, probes = time.monotonic(), 0
    while True:
        current = int(await client.get(pointer_key(query_id)) or 0)
        if current not in {0, attempt}:
            attempt, seen = current, 0
            if told:
                yield StreamEvent(f"{attempt}-0", "restart", {})
        announced = False
        for n, event, data in await _news(
            client, query_id, attempt, seen, PROBES[min(probes, len(PROBES) - 1)]
        ):
            seen, told = n, True
            silent_since, probes = time.monotonic(), 0
            if event == "finished":
                announced = True
                break
            yield StreamEvent(f"{attempt}-{n}", event, data)
        due = time.monotonic() - silent_since >= PROBES[min(probes, len(PROBES) - 1)]
        if not announced and not due:
            continue
        probes += 1
        result = await _result(final, announced)
        if result is not None:
            kind = "error" if result.get("status") == "failed" else "done"
            yield StreamEvent(f"{attempt}-{seen if announced else seen + 1}", kind, result)
            return


async def wait_for_answer(
    client: redis.asyncio.Redis, query_id: str, *, final: Final, timeout: float
) -> Mapping[str, Any] | None:
    """Wait until an answer is finished, at most `timeout` seconds; None when it is not by then."""
    try:
        async with asyncio.timeout(timeout):
            async for event in follow(client, query_id, None, final=final):
                if event.event in {"done", "error"}:
                    return event.data
    except TimeoutError:
        return await final()
    return None


async def _news(
    client: redis.asyncio.Redis, query_id: str, attempt: int, seen: int, wait: float
) -> list[tuple[int, str, Mapping[str, Any]]]:
    """New events of this attempt; waits for one of them, or for the first event of the next attempt."""
    own = stream_key(query_id, attempt)
    wanted: dict[Any, Any] = {stream_key(query_id, attempt + 1): "0-0"}
    if attempt:
        wanted[own] = f"{seen}-0"
    found = await client.xread(wanted, count=200, block=max(1, int(wait * 1000)))
    return [
        (int(entry_id.split(b"-")[0]), fields[b"event"].decode(), orjson.loads(fields[b"data"]))
        for key, entries in found or []
        if key == own.encode()
        for entry_id, fields in entries
    ]


async def _result(final: Final, announced: bool) -> Mapping[str, Any] | None:
    """The finished answer. A worker announces it before its commit, so an announced one is looked for a few times."""
    for wait in COMMIT_WAITS if announced else (0.0,):
        await asyncio.sleep(wait)
        result = await final()
        if result is not None:
            return result
    return None


def _position(after: str | None) -> tuple[int, int]:
    """Attempt and event number of a Last-Event-ID; anything unreadable means from the beginning."""
    attempt, _, n = (after or "").partition("-")
    if attempt.isdecimal() and n.isdecimal():
        return int(attempt), int(n)
    return 0, 0

"""Dead letters of both stores pass through here as one listing: dead rows of the ledger, and letters of the engine.

Ledgered work is dead in the ledger and only there; the engine keeps what never had a row, such as a job that somebody
enqueued with arq itself. An operator need not know which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from infra import operations
from infra.database import Connection
from infra.operations import DeadFilter
from schemas.errors import NotFound
from schemas.registry import QUEUES

if TYPE_CHECKING:
    from arq.connections import ArqRedis

    from workers.engine.deadletters import DeadLetter, DeadLetters

LEDGER, ENGINE = "ledger", "engine"
NOWHERE = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Which:
    """Which dead letters; what is None does not matter. An id of the engine's store need not be a UUID."""

    tenant: str | None = None
    queue: str | None = None
    type: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    one: str | None = None

    def of_ledger(self) -> DeadFilter:
        """The same question to the ledger."""
        event_id = None if self.one is None else _as_uuid(self.one) or NOWHERE
        return DeadFilter(self.tenant, self.queue, self.type, self.error, self.since, event_id, self.until)

    def match(self, letter: DeadLetter) -> bool:
        """The same question to a letter of the engine."""
        died = datetime.fromtimestamp(letter.died_ms / 1000, UTC)
        return (
            self.tenant in {None, letter.tenant}
            and self.type in {None, letter.function}
            and self.error in {None, letter.error}
            and (self.since is None or died >= self.since)
            and (self.until is None or died < self.until)
            and self.one in {None, letter.job_id}
        )


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _row(letter: DeadLetter, queue: str) -> dict[str, Any]:
    """A letter as the ledger would list it."""
    return {
        "event_id": letter.job_id,
        "tenant_id": letter.tenant,
        "queue": queue,
        "type": letter.function,
        "subject": None,
        "attempts": letter.attempts,
        "losses": letter.losses,
        "accepted_at": datetime.fromtimestamp(letter.enqueued_ms / 1000, UTC),
        "dead_at": datetime.fromtimestamp(letter.died_ms / 1000, UTC),
        "error": {"code": letter.error, "message": letter.message, "trace": list(letter.trace)},
        "store": ENGINE,
    }


class DeadStores:
    """Both stores.

    Args:
        connection: the owner's.
        client: Redis.
    """

    def __init__(self, connection: Connection, client: ArqRedis) -> None:
        self._connection = connection
        self._client = client

    def _letters(self, queue: str) -> DeadLetters:
        from workers.engine.deadletters import DeadLetters

        return DeadLetters(self._client, queue)

    async def listed(self, which: Which, *, limit: int) -> list[dict[str, Any]]:
        """Those that match, the newest death first; `accepted_at` is the first time, `dead_at` the last."""
        rows = await operations.list_dead(self._connection, which.of_ledger(), limit=limit)
        found = [{**row, "store": LEDGER} for row in rows]
        for queue in QUEUES if which.queue is None else (which.queue,):
            letters = await self._letters(queue).listed(match=which.match, limit=limit, newest=True)
            found += [_row(letter, queue) for letter in letters]
        return sorted(found, key=lambda row: row["dead_at"], reverse=True)[:limit]

    async def show(self, one: str) -> dict[str, Any]:
        """One dead letter; without its payload.

        Raises:
            NotFound: neither store has it.
        """
        for queue in QUEUES:
            letter = await self._letters(queue).show(one)
            if letter is not None:
                return {**_row(letter, queue), "payload_bytes": len(letter.payload)}
        event_id = _as_uuid(one)
        if event_id is None:
            raise NotFound(f"no queue has a dead letter {one}")
        return {**await operations.show_event(self._connection, event_id), "store": LEDGER}

    async def replay(self, rows: Sequence[dict[str, Any]], *, per_second: float) -> int:
        """Bring them back onto their queues, one every so often; returns how many came back."""
        ledgered = [row for row in rows if row["store"] == LEDGER]
        done = await operations.replay(self._connection, self._client, ledgered, per_second=per_second)
        return done + await self._act(
            rows,
            "dead.replay",
            lambda store, ids: store.replay(
                match=lambda letter: letter.job_id in ids, limit=len(ids), stagger=1 / per_second
            ),
        )

    async def discard(self, rows: Sequence[dict[str, Any]]) -> int:
        """Take them off the list: rows stay in the ledger, letters of the engine are deleted."""
        ledgered = [row for row in rows if row["store"] == LEDGER]
        done = await operations.discard(self._connection, ledgered)
        return done + await self._act(
            rows,
            "dead.discard",
            lambda store, ids: store.discard(match=lambda letter: letter.job_id in ids, limit=len(ids)),
        )

    async def _act(
        self, rows: Sequence[dict[str, Any]], action: str, act: Callable[[DeadLetters, set[str]], Any]
    ) -> int:
        """Do it in the engine's store, with an audit line per tenant in the same transaction."""
        done = 0
        for queue in sorted({row["queue"] for row in rows if row["store"] == ENGINE}):
            mine = [row for row in rows if row["store"] == ENGINE and row["queue"] == queue]
            async with self._connection.transaction():
                touched = set(await act(self._letters(queue), {row["event_id"] for row in mine}))
                tenants = [row["tenant_id"] for row in mine if row["event_id"] in touched]
                await operations.audit(self._connection, tenants, "operator", action)
            done += len(touched)
        return done

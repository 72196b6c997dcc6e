import asyncio
import json
import time
from collections.abc import Sequence
from uuid import UUID

from infra import attempts
from infra.attempts import Finish
from infra.database import Connection, Database
from schemas.errors import Permanent
from schemas.registry import INGEST
from schemas.states import EventState
from schemas.work import Publication, Work
from tests.drive import Drive
from workers.commit import Committer
from workers.engine.types import ClaimedJob, Done, GiveBack, Verdict
from workers.handling import Done as Finished
from workers.handling import HandlerSpec, OneCall, Outcome
from workers.runtime import Runtime

DATA = {"collection": "c", "document_id": "d", "content": "text"}
BACKLOG = """
INSERT INTO events (tenant_id, event_id, source, id, type, queue, data)
SELECT $1, uuidv7(interval '-1 minute'), 'backlog', n::text, 'document.added', 'penstock:ingest',
  jsonb_build_object('content', repeat('x', 500))
FROM generate_series(1, 3000) AS n
"""


async def take(database: Database, event_id: UUID) -> Work:
    """Claim one event, as a worker does."""
    work = (await attempts.claim(database, [(event_id, time.time_ns() // 1000)]))[event_id]
    assert isinstance(work, Work)
    return work


async def test_an_ending_without_effect_is_refused_once_another_has_the_event(
    bare: Drive, tenant: str
) -> None:
    """Another worker took the event while the handler ran: its row stays the other's."""

    async def handle(work: Work) -> Outcome:
        await bare.rows("UPDATE events SET token = token + 1 WHERE event_id = $1 RETURNING 1", work.event_id)
        return Finished()

    bare.handlers["document.added"] = HandlerSpec(handle)
    event_id = await bare.publish(tenant, "document.added", DATA)
    assert [GiveBack(1.0)] == await bare.step(tenant)
    assert "running" == (await bare.event(event_id))["status"]


async def test_an_ending_sent_twice_is_written_once(
    bare: Drive, tenant: str, worker_database: Database
) -> None:
    """The reply to a commit was lost and it is sent again: the event is ours both times, and stays as it was."""
    event_id = await bare.publish(tenant, "document.added", DATA)
    work = await take(worker_database, event_id)
    done = Finish(work, EventState.DONE, 1)
    assert {event_id} == await attempts.finish_bare(worker_database, [done])
    first = await bare.event(event_id)
    assert {event_id} == await attempts.finish_bare(worker_database, [done])
    assert first == await bare.event(event_id)


async def test_many_endings_at_once_are_all_written(bare: Drive, tenant: str) -> None:
    """A hundred events that end at the same time are done, each under its own token."""

    async def handle(_: Work) -> Outcome:
        return Finished()

    bare.handlers["document.added"] = HandlerSpec(handle)
    for number in range(100):
        await bare.publish(tenant, "document.added", {**DATA, "document_id": str(number)})
    assert [Done()] * 100 == await bare.step(tenant)
    assert [{"status": "done", "n": 100}] == await bare.rows(
        "SELECT status, count(*) AS n FROM events WHERE tenant_id = $1 GROUP BY 1", tenant
    )


async def test_what_one_call_cannot_write_is_written_step_by_step(bare: Drive, tenant: str) -> None:
    """A call that fails, or that leaves an ending alone, costs nothing: its effect runs in a transaction instead."""

    async def refuses(*_: object) -> dict[UUID, bool]:
        raise Permanent("it would not go in")

    async def leaves(_: Database, endings: Sequence[tuple[Work, object]]) -> dict[UUID, bool]:
        return {work.event_id: False for work, _ in endings}

    async def say(_: Connection) -> Sequence[Publication]:
        return [Publication("document.purged", {"collection": "c", "document_id": "d", "sequence": 1})]

    async def handle(work: Work) -> Outcome:
        return Finished(OneCall(refuses if work.data["document_id"] == "refused" else leaves, None, say))

    bare.handlers["document.added"] = HandlerSpec(handle)
    for name in ("refused", "left"):
        await bare.publish(tenant, "document.added", {**DATA, "document_id": name})
    assert [Done(), Done()] == await bare.step(tenant)
    assert 2 == len(await bare.said(tenant, "document.purged"))


async def test_a_stopping_worker_charges_nothing(bare: Drive, tenant: str) -> None:
    """What runs when a worker stops is accepted again in the ledger: neither an attempt nor a loss is counted."""
    begun = asyncio.Event()

    async def handle(_: Work) -> Outcome:
        begun.set()
        await asyncio.Event().wait()
        return Finished()

    bare.handlers["document.added"] = HandlerSpec(handle)
    event_id = await bare.publish(tenant, "document.added", DATA)
    committer = Committer(bare.resources.database, bare.resources.bus)
    runtime = Runtime(bare.resources.database, committer, bare.handlers)
    now = time.time_ns() // 1000
    job = ClaimedJob(str(event_id), "document.added", (), {}, 1, 0, now, now // 1000, now // 1000, INGEST)
    verdicts: list[Verdict] = []
    running = asyncio.create_task(runtime.start([job], lambda _, verdict: verdicts.append(verdict)))
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert [] == verdicts
    again = await take(bare.resources.database, event_id)
    assert (1, 0) == (again.attempt, again.losses)


async def test_taking_an_event_does_not_read_the_backlog(
    bare: Drive, tenant: str, owner_database: Database
) -> None:
    """Each event is looked up in an index, one or many at once, whatever the planner believes of a queue that just filled."""
    event_id = await bare.publish(tenant, "document.added", DATA)
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM ledger_claim($1::uuid[], $2::bigint[])"
    async with owner_database.connection() as connection:
        await connection.execute(BACKLOG, tenant)
        # The first calls plan, and read the catalog.
        plans = [
            await connection.fetchval(explain, [event_id] * size, [token] * size)
            for token, size in enumerate((1, 1, 1, 8, 8, 8), 1)
        ]
    for [plan] in [json.loads(one) if isinstance(one, str) else one for one in (plans[2], plans[5])]:
        assert 1 == plan["Plan"]["Actual Rows"]
        # The backlog fills some 270 pages; the event's row moves to another page, with an entry in each index.
        assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 150, plan
    await bare.rows("DELETE FROM events WHERE tenant_id = $1 RETURNING 1", tenant)

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import pytest

from infra.database import Connection
from schemas.errors import BadInput, BudgetExceeded, PenstockError, RateLimited, Unavailable
from schemas.registry import INGEST
from schemas.work import Publication, Work
from tests.conftest import NewTenant
from tests.drive import Drive
from workers.engine.types import Bury, Done, GiveBack, Gone, RetryAt, Verdict
from workers.handling import Done as Finished
from workers.handling import HandlerSpec, Later, Outcome

DATA = {"collection": "c", "document_id": "d", "content": "text"}


class Note:
    """An effect: one line in the audit log."""

    def __init__(self, text: str, *publications: Publication) -> None:
        self.text = text
        self.publications = publications

    async def __call__(self, connection: Connection) -> Sequence[Publication]:
        """Write the line for whichever tenant the transaction acts for."""
        await connection.execute(
            "INSERT INTO audit_log (tenant_id, actor, action, target) VALUES (app_tenant(), 'test', $1, 'x')",
            self.text,
        )
        return self.publications


async def notes(drive: Drive, tenant: str) -> list[str]:
    """What effects have written for a tenant."""
    rows = await drive.rows("SELECT action FROM audit_log WHERE tenant_id = $1 ORDER BY action", tenant)
    return [row["action"] for row in rows]


async def test_effect_status_and_follow_ups_commit_together(bare: Drive, tenant: str) -> None:
    """A handler's effect, the event's status and what it says next are there at once (P2)."""
    said = Publication("document.indexed", {"collection": "c", "document_id": "d"}, subject="c/d")

    async def handle(_: Work) -> Outcome:
        return Finished(Note("effect", said))

    bare.handlers["document.added"] = HandlerSpec(handle)
    event_id = await bare.publish(tenant, "document.added", DATA, correlationid="thread")
    assert [Done()] == await bare.step(tenant)
    row = await bare.event(event_id)
    assert ("done", 1) == (row["status"], row["attempts"])
    assert ["effect"] == await notes(bare, tenant)
    [follow] = await bare.rows(
        "SELECT * FROM events WHERE tenant_id = $1 AND type = 'document.indexed'", tenant
    )
    assert ("done", event_id) == (follow["status"], follow["caused_by"])
    assert {"correlationid": "thread", "causationid": str(event_id)} == follow["attributes"]


async def test_a_failing_effect_leaves_nothing_and_its_neighbours_succeed(bare: Drive, tenant: str) -> None:
    """One effect of a group fails: it alone is tried again, and nothing of it is written (P7)."""

    async def handle(work: Work) -> Outcome:
        if work.data["document_id"] != "bad":
            return Finished(Note("good"))

        async def effect(connection: Connection) -> Sequence[Publication]:
            await Note("half")(connection)
            raise Unavailable("the effect failed")

        return Finished(effect)

    bare.handlers["document.added"] = HandlerSpec(handle)
    good = [await bare.publish(tenant, "document.added", {**DATA, "document_id": str(n)}) for n in range(3)]
    bad = await bare.publish(tenant, "document.added", {**DATA, "document_id": "bad"})
    await bare.step(tenant)
    assert ["good"] * 3 == await notes(bare, tenant)
    assert ["done"] * 3 == [(await bare.event(event_id))["status"] for event_id in good]
    assert (await bare.event(bad))["status"] in {"retrying", "running"}


@pytest.mark.parametrize(
    ("error", "verdict", "status", "attempts"),
    [
        (BadInput("no", field="data.x"), Bury, "dead", 1),
        (Unavailable(), RetryAt, "retrying", 1),
        (RateLimited(retry_after=3.0), GiveBack, "accepted", 0),
        (BudgetExceeded(retry_after=60.0), GiveBack, "paused_budget", 0),
        (RuntimeError("secret text"), RetryAt, "retrying", 1),
    ],
)
async def test_an_error_becomes_a_state(
    bare: Drive, tenant: str, error: Exception, verdict: type[Verdict], status: str, attempts: int
) -> None:
    """The error's branch decides: buried, tried again, or given back without a charge (P9); foreign text is not kept (P8)."""

    async def handle(_: Work) -> Outcome:
        raise error

    bare.handlers["document.added"] = HandlerSpec(handle)
    event_id = await bare.publish(tenant, "document.added", DATA)
    [told] = await bare.step(tenant)
    assert isinstance(told, verdict)
    row = await bare.event(event_id)
    assert (status, attempts) == (row["status"], row["attempts"])
    assert "secret text" not in str(row["error"])
    assert row["error"]["trace"][-1].endswith(" handle")
    assert row["error"]["code"] == (error.code if isinstance(error, PenstockError) else "RuntimeError")


async def test_a_group_of_mixed_endings_commits_at_once(bare: Drive, tenant: str) -> None:
    """Work that ended well and work that waits, with and without a line for its story, share one transaction."""

    async def handle(work: Work) -> Outcome:
        match work.data["document_id"]:
            case "wait":
                raise RateLimited(retry_after=1.0)
            case "later":
                return Later(5.0, reason="a step")
            case _:
                return Finished()

    bare.handlers["document.added"] = HandlerSpec(handle)
    for name in ("wait", "later", "done"):
        await bare.publish(tenant, "document.added", {**DATA, "document_id": name})
    assert ["Done", "GiveBack", "GiveBack"] == sorted(
        type(verdict).__name__ for verdict in await bare.step(tenant)
    )
    rows = await bare.rows(
        "SELECT data ->> 'document_id' AS name, story FROM events WHERE tenant_id = $1", tenant
    )
    assert {"wait": ["given back"], "later": ["waiting"], "done": []} == {
        row["name"]: [line["what"] for line in row["story"]] for row in rows
    }
    transactions = await bare.rows("SELECT DISTINCT xmin::text FROM events WHERE tenant_id = $1", tenant)
    assert 1 == len(transactions)


async def test_waiting_again_for_the_same_reason_adds_no_line(bare: Drive, tenant: str) -> None:
    """A long outage is one line of the story, however often the work was given back."""

    async def handle(_: Work) -> Outcome:
        raise RateLimited(retry_after=1.0)

    bare.handlers["document.added"] = HandlerSpec(handle)
    event_id = await bare.publish(tenant, "document.added", DATA)
    for _ in range(3):
        await bare.step(tenant)
    assert ["given back"] == [line["what"] for line in (await bare.event(event_id))["story"]]


async def test_the_last_attempt_buries(bare: Drive, tenant: str) -> None:
    """After the last charged attempt the event is dead, says so, and the wing hears of it in the same transaction."""

    async def handle(_: Work) -> Outcome:
        raise Unavailable

    async def on_dead(connection: Connection, work: Work, error: PenstockError) -> Sequence[Publication]:
        return await Note(f"{work.type} {error.code}")(connection)

    bare.handlers["document.added"] = HandlerSpec(handle, on_dead, max_attempts=3)
    event_id = await bare.publish(tenant, "document.added", DATA)
    verdicts = await bare.settle(tenant)
    assert [RetryAt, RetryAt, Bury] == [type(verdict) for verdict in verdicts]
    assert ["document.added unavailable"] == await notes(bare, tenant)
    [dead] = await bare.said(tenant, "event.dead")
    assert (str(event_id), "unavailable") == (dead["event_id"], dead["error"]["code"])
    assert ["failed", "failed", "dead"] == [line["what"] for line in (await bare.event(event_id))["story"]]


async def test_work_whose_lease_was_lost_writes_nothing(bare: Drive, tenant: str) -> None:
    """Another worker took the event while the handler ran: the effect is left out before it is written."""

    async def handle(work: Work) -> Outcome:
        await bare.rows("UPDATE events SET token = token + 1 WHERE event_id = $1 RETURNING 1", work.event_id)
        return Finished(Note("late"))

    bare.handlers["document.added"] = HandlerSpec(handle)
    await bare.publish(tenant, "document.added", DATA)
    assert [GiveBack(1.0)] == await bare.step(tenant)
    assert [] == await notes(bare, tenant)


async def test_an_event_whose_claim_a_crashed_database_forgot_runs_again(bare: Drive, tenant: str) -> None:
    """The mark of a claim is not waited for: where it is lost nothing is written, and the job is not given up (P1)."""
    crashes = [True, False]

    async def handle(work: Work) -> Outcome:
        if crashes.pop(0):
            await bare.rows(
                "UPDATE events SET status = 'accepted', token = NULL, started_at = NULL WHERE event_id = $1 RETURNING 1",
                work.event_id,
            )
        return Finished(Note("once"))

    bare.handlers["document.added"] = HandlerSpec(handle)
    event_id = await bare.publish(tenant, "document.added", DATA)
    assert [GiveBack(1.0), Done()] == await bare.settle(tenant)
    assert ["once"] == await notes(bare, tenant)
    assert "done" == (await bare.event(event_id))["status"]


async def test_a_step_brings_the_same_event_back_uncharged(bare: Drive, tenant: str) -> None:
    """Later commits one step and waits in the ledger, so that an emptied Redis loses no deferral."""
    runs: list[int] = []

    async def handle(work: Work) -> Outcome:
        runs.append(work.attempt)
        return Later(30.0, Note(f"step {len(runs)}")) if len(runs) < 3 else Finished()

    bare.handlers["document.added"] = HandlerSpec(handle)
    event_id = await bare.publish(tenant, "document.added", DATA)
    assert [GiveBack(30.0)] == await bare.step(tenant)
    row = await bare.event(event_id)
    assert row["status"] == "accepted"
    assert row["due_at"] is not None
    assert [GiveBack(30.0), Done()] == await bare.settle(tenant)
    assert [1, 1, 1] == runs
    assert ["step 1", "step 2"] == await notes(bare, tenant)


async def test_effects_of_a_group_see_their_own_tenant_only(bare: Drive, new_tenant: NewTenant) -> None:
    """Works of several tenants share a transaction; each effect acts for one tenant (P6)."""
    tenants = [await new_tenant() for _ in range(3)]
    arrived = asyncio.Barrier(3)

    async def handle(work: Work) -> Outcome:
        await arrived.wait()
        return Finished(Note(work.tenant_id, Publication("document.purged", {"document_id": "d"})))

    bare.handlers["document.added"] = HandlerSpec(handle)
    jobs = [
        (await bare.publish(tenant, "document.added", DATA), "document.added", INGEST) for tenant in tenants
    ]
    assert [Done()] * 3 == await bare.run(jobs)
    for tenant in tenants:
        assert [tenant] == await notes(bare, tenant)
        assert [{"document_id": "d"}] == await bare.said(tenant, "document.purged")


async def test_jobs_without_a_ledger_row_are_not_run(bare: Drive) -> None:
    """Redis is not trusted: an id that the ledger does not know is not work."""
    verdicts = await bare.run([(uuid4(), "document.added", INGEST)])
    assert [Bury("not_in_ledger", "no event has this id; publish through Penstock")] == verdicts


async def test_a_finished_event_is_gone(bare: Drive, tenant: str) -> None:
    """A job that comes twice runs once."""

    async def handle(_: Work) -> Outcome:
        return Finished(Note("once"))

    bare.handlers["document.added"] = HandlerSpec(handle)
    event_id = await bare.publish(tenant, "document.added", DATA)
    job = (event_id, "document.added", INGEST)
    assert [Done()] == await bare.run([job])
    assert [Gone()] == await bare.run([job])
    assert ["once"] == await notes(bare, tenant)


async def test_worker_lost_is_buried_in_the_ledger(bare: Drive, tenant: str) -> None:
    """An event that killed its workers is dead with that reason."""
    event_id = await bare.publish(tenant, "document.added", DATA)

    async def handle(_: Work) -> Outcome:
        return Finished()

    bare.handlers["document.added"] = HandlerSpec(handle)
    verdicts = await bare.run([(event_id, "document.added", INGEST)], losses=5)
    row = await bare.event(event_id)
    assert ("dead", "worker_lost") == (row["status"], row["error"]["code"])
    assert [Bury] == [type(verdict) for verdict in verdicts]

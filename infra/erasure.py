"""What somebody wants forgotten passes through here: out of the ledger, the knowledge, the answers, the examples, Redis.

Ids, hashes and states stay, so that a repetition is still known and the audit trail holds. The database's part is one
transaction per document, question or person (`erase` in the migrations); a whole tenant goes in steps, each of which
may be the last one before a crash: erasing again goes on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import redis.asyncio
from arq.constants import job_key_prefix
from redis.exceptions import RedisError

from infra import answer_stream, outbox
from infra.answer_stops import ask_to_stop
from infra.database import Connection, Database, queries
from infra.outbox import Said
from infra.push import push
from schemas.errors import BadInput, NotFound, TransactionConflict, Unavailable
from schemas.work import Publication, Pushable

Kind = Literal["document", "query", "subject", "tenant"]
STEP = 5000
TIMEOUT = 600.0
CONFLICT_RETRIES = 5
PIPE = 500


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be forgotten.

    Attributes:
        place: the collection of a document, else empty.
        name: the document's id, the question's id, the subjectref, or the tenant's own name.
    """

    kind: Kind
    name: str
    place: str = ""

    def shown(self) -> str:
        """How the audit trail names it: a person by a hash only."""
        if self.kind == "subject":
            return f"subject sha256:{hashlib.sha256(self.name.encode()).hexdigest()}"
        return f"{self.kind} {self.place}/{self.name}" if self.place else f"{self.kind} {self.name}"


@dataclass(slots=True)
class Erased:
    """What was taken out, or would be.

    Attributes:
        counts: rows per kind of thing.
        tainted_runs: runs that were made of erased examples; those under way are stopped, and the train workers delete
            their files at the provider.
    """

    kind: Kind
    dry_run: bool
    counts: Counter[str] = field(default_factory=Counter)
    tainted_runs: set[str] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        """As `--json` and the HTTP API show it."""
        return {
            "kind": self.kind,
            "dry_run": self.dry_run,
            "counts": dict(self.counts),
            "tainted_runs": sorted(self.tainted_runs),
        }

    def add(self, found: Mapping[str, Any]) -> None:
        """Count what one call of the database did."""
        self.counts.update(found["counts"])
        self.tainted_runs.update(found.get("runs", ()))


class _Undo(Exception):
    """Ends the transaction of a dry run."""


async def erase(
    database: Database,
    client: redis.asyncio.Redis,
    tenant: str,
    target: Target,
    *,
    dry_run: bool = False,
    actor: str = "operator",
) -> Erased:
    """Forget something for good, or say what would be forgotten.

    Args:
        database: acts as ``penstock_gateway`` or as the owner.
        client: Redis; it must answer, because answers and jobs stand there too.
        tenant: whose.
        target: what.
        dry_run: do it all and roll it back.
        actor: for the audit trail.

    Raises:
        NotFound: there is no such tenant.
        BadInput: a question's id is none.
        Unavailable: PostgreSQL or Redis is away. Erasing again goes on where this ended.
    """
    await _check(database, client, tenant, target)
    done = Erased(target.kind, dry_run)
    if target.kind == "tenant":
        await _erase_tenant(database, client, tenant, done)
    else:
        found = await _once(database, tenant, target, done)
        if not dry_run:
            await _forget(client, tenant, found)
            # A question that was taken up meanwhile may have read a document before it was gone: look once more.
            for place, name in found["documents"]:
                await _forget(
                    client, tenant, await _once(database, tenant, Target("document", name, place), done)
                )
    if not dry_run:
        async with database.transaction(tenant) as connection:
            details = {"counts": dict(done.counts), "tainted_runs": sorted(done.tainted_runs)}
            await connection.execute(queries("erasure").audit, tenant, actor, target.shown(), details)
    return done


async def _check(database: Database, client: redis.asyncio.Redis, tenant: str, target: Target) -> None:
    if target.kind == "query":
        try:
            UUID(target.name)
        except ValueError:
            raise BadInput("a question's id is a UUID", field="query_id") from None
    async with database.transaction(tenant, readonly=True) as connection:
        if await connection.fetchrow(queries("gateway_tenants").show, tenant) is None:
            raise NotFound(f"there is no tenant {tenant}", field="tenant")
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        raise Unavailable(
            f"Redis cannot be reached ({type(error).__name__}); nothing was erased",
            fix="streamed answers stand there too: erase when it is back",
        ) from None


async def _once(database: Database, tenant: str, target: Target, done: Erased) -> Mapping[str, Any]:
    """One call of the database's part; when it meets a worker's transaction it is made again."""
    for _ in range(CONFLICT_RETRIES):
        try:
            found = await _attempt(database, tenant, target, dry_run=done.dry_run)
            break
        except TransactionConflict:
            continue
    else:
        found = await _attempt(database, tenant, target, dry_run=done.dry_run)
    done.add(found)
    return found


async def _attempt(database: Database, tenant: str, target: Target, *, dry_run: bool) -> Mapping[str, Any]:
    found: Mapping[str, Any] = {}
    with suppress(_Undo):
        async with database.transaction(tenant) as connection:
            found = await connection.fetchval(
                queries("erasure").erase, target.kind, target.place, target.name, timeout=TIMEOUT
            )
            _undo_if(dry_run)
            found = {**found, "said": await _say_purged(connection, tenant, found["documents"])}
    return found


async def _say_purged(
    connection: Connection, tenant: str, documents: Sequence[Sequence[str]]
) -> list[Pushable]:
    """Tell receivers which documents are gone, so that they forget them too; ids only, and within the transaction."""
    if not documents:
        return []
    places, names = zip(*documents, strict=True)
    rows = await connection.fetch(queries("erasure").purged, tenant, list(places), list(names))
    return await outbox.write(
        connection,
        [
            Said(tenant, Publication("document.purged", dict(row), subject=row["document_id"]), None)
            for row in rows
        ],
    )


def _undo_if(dry_run: bool) -> None:
    if dry_run:
        raise _Undo


async def _erase_tenant(database: Database, client: redis.asyncio.Redis, tenant: str, done: Erased) -> None:
    sql = queries("erasure")
    if done.dry_run:
        async with database.transaction(tenant, readonly=True) as connection:
            done.counts.update(await connection.fetchval(sql.tenant_counts, tenant, timeout=TIMEOUT))
        return
    while True:
        found = await _step(database, tenant)
        done.add(found)
        await _forget(client, tenant, {**found, "again": [], "said": []})
        if not any(found["counts"].values()):
            return


async def _step(database: Database, tenant: str) -> Mapping[str, Any]:
    async def step(connection: Connection) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await connection.fetchval(
            queries("erasure").tenant_step, STEP, timeout=TIMEOUT
        )
        return found

    for _ in range(CONFLICT_RETRIES):
        try:
            async with database.transaction(tenant) as connection:
                return await step(connection)
        except TransactionConflict:
            continue
    async with database.transaction(tenant) as connection:
        return await step(connection)


async def _forget(client: redis.asyncio.Redis, tenant: str, found: Mapping[str, Any]) -> None:
    """Take out of Redis what the database has committed.

    Raises:
        Unavailable: Redis went away meanwhile; streamed answers end there within the hour by themselves.
    """
    again: Sequence[Mapping[str, Any]] = found["again"]
    try:
        for query_id in found["queries"]:
            await ask_to_stop(client, query_id)
            await answer_stream.forget(client, query_id)
        for one in again:
            await answer_stream.forget(client, one["event_id"])
        jobs: Sequence[Mapping[str, Any]] = found["jobs"]
        for start in range(0, len(jobs), PIPE):
            async with client.pipeline(transaction=False) as pipe:
                for job in jobs[start : start + PIPE]:
                    pipe.zrem(job["queue"], job["event_id"])
                    pipe.delete(f"{job_key_prefix}{job['event_id']}")
                await pipe.execute()
        waiting = [Pushable(UUID(one["event_id"]), one["type"], one["queue"], 1.0, tenant) for one in again]
        await push(client, [*waiting, *found["said"]])
    except (RedisError, OSError) as error:
        raise Unavailable(
            f"Redis went away ({type(error).__name__}): the database has erased it, streamed answers end within the hour"
        ) from None

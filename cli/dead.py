"""Dead letters: look, replay, discard. For ledgered work the dead row of the ledger is the only dead letter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.operate import Kind, Limit, Tenant, queue_named
from cli.run import owner_database, run_async, serving_settings
from cli.show import AsJson, print_fields, print_rows

if TYPE_CHECKING:
    from cli.dead_stores import DeadStores, Which

dead_app = typer.Typer(no_args_is_help=True, help="Dead letters: look, replay, discard.")

Queue = Annotated[str | None, typer.Option(help="Only this queue: ingest, answer, train or deliver.")]
ErrorCode = Annotated[str | None, typer.Option(help="Only this error code.")]
Since = Annotated[
    float | None, typer.Option("--since-hours", min=0, help="Only what died in the last so many hours.")
]
Until = Annotated[
    float | None, typer.Option("--until-hours", min=0, help="Only what died at least so many hours ago.")
]
One = Annotated[str | None, typer.Option("--event", help="Only this event, or this job without one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many.")]


def _which(
    *,
    tenant: str | None,
    queue: str | None,
    kind: str | None,
    error: str | None,
    since: float | None,
    until: float | None,
    one: str | None = None,
) -> Which:
    from cli.dead_stores import Which

    now = datetime.now(UTC)
    since_at, until_at = (None if hours is None else now - timedelta(hours=hours) for hours in (since, until))
    name = None if queue is None else queue_named(queue)
    return Which(tenant, name, kind, error, since_at, until_at, one)


@asynccontextmanager
async def _stores() -> AsyncIterator[DeadStores]:
    from arq.connections import ArqRedis
    from redis.asyncio import ConnectionPool

    from cli.dead_stores import DeadStores

    async with owner_database() as database, database.connection() as connection:
        pool = ConnectionPool.from_url(serving_settings().need("REDIS_URL"), socket_connect_timeout=5)
        client = ArqRedis(pool)
        try:
            yield DeadStores(connection, client)
        finally:
            await client.aclose(close_connection_pool=True)
            await pool.disconnect()


@dead_app.command("list")
def list_dead(
    *,
    tenant: Tenant = None, queue: Queue = None, kind: Kind = None, error: ErrorCode = None, since_hours: Since = None,
    until_hours: Until = None, limit: Limit = 50, as_json: AsJson = False,
) -> None:  # fmt: skip
    """List dead events and jobs, newest first, with why they died."""
    which = _which(tenant=tenant, queue=queue, kind=kind, error=error, since=since_hours, until=until_hours)

    async def find() -> list[dict[str, Any]]:
        async with _stores() as stores:
            return await stores.listed(which, limit=limit)

    rows = [
        {**row, "code": row["error"]["code"], "message": row["error"]["message"]} for row in run_async(find())
    ]
    columns = ("event_id", "tenant_id", "type", "code", "message", "attempts", "accepted_at", "dead_at")
    print_rows(rows, columns, as_json=as_json, empty="No dead events.")


@dead_app.command("show")
def show_dead(event_id: str, as_json: AsJson = False) -> None:
    """Show one dead event with its story, or one dead job, with the trace of its error."""

    async def find() -> dict[str, Any]:
        async with _stores() as stores:
            return await stores.show(event_id)

    print_fields(run_async(find()), as_json=as_json)


@dead_app.command("replay")
def replay_dead(
    *,
    tenant: Tenant = None, queue: Queue = None, kind: Kind = None, error: ErrorCode = None, since_hours: Since = None,
    until_hours: Until = None, event: One = None, limit: Limit = 1000,
    per_second: Annotated[float, typer.Option(min=0.01, help="Stagger: so many events per second.")] = 50.0,
    dry_run: DryRun = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Bring dead events and jobs back onto their queues."""
    which = _which(
        tenant=tenant, queue=queue, kind=kind, error=error, since=since_hours, until=until_hours, one=event
    )

    async def act() -> tuple[int, int]:
        async with _stores() as stores:
            found = await stores.listed(which, limit=limit)
            return len(found), 0 if dry_run else await stores.replay(found, per_second=per_second)

    found, done = run_async(act())
    print_fields({"matched": found, "replayed": done}, as_json=as_json)


@dead_app.command("discard")
def discard_dead(
    *,
    tenant: Tenant = None, queue: Queue = None, kind: Kind = None, error: ErrorCode = None, since_hours: Since = None,
    until_hours: Until = None, event: One = None, limit: Limit = 1000, dry_run: DryRun = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Take them off the list: events stay in the ledger until retention, jobs without a row are deleted."""
    which = _which(
        tenant=tenant, queue=queue, kind=kind, error=error, since=since_hours, until=until_hours, one=event
    )

    async def act() -> tuple[int, int]:
        async with _stores() as stores:
            found = await stores.listed(which, limit=limit)
            return len(found), 0 if dry_run else await stores.discard(found)

    found, done = run_async(act())
    print_fields({"matched": found, "discarded": done}, as_json=as_json)


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.add_typer(dead_app, name="dead", rich_help_panel="Operate")

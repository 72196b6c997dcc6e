"""What operators look at: status and events. They speak to the database and Redis directly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import click
import typer

from cli.run import is_terminal, owner_database, run_async, serving_settings
from cli.show import AsJson, print_fields, print_json, print_rows
from schemas.errors import BadInput

if TYPE_CHECKING:
    import redis.asyncio

events_app = typer.Typer(
    no_args_is_help=True, help="Look at events in the ledger: ids, states and times, no payload."
)

Tenant = Annotated[str | None, typer.Option(help="Only this tenant.")]
Kind = Annotated[str | None, typer.Option("--type", help="Only this event type.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]
ATTEMPTS = ("queue", "type", "attempts", "done", "retried", "given_back", "dead", "wait_ms", "run_ms")


@asynccontextmanager
async def open_client() -> AsyncIterator[redis.asyncio.Redis]:
    """A Redis client for one command."""
    from infra.bus import open_redis

    client = open_redis(serving_settings().need("REDIS_URL"))
    try:
        yield client
    finally:
        await client.aclose(close_connection_pool=True)


def queue_named(name: str) -> str:
    """A queue by its short or full name.

    Raises:
        BadInput: there is none; names those that are.
    """
    from schemas.registry import QUEUES

    short = {queue.removeprefix("penstock:"): queue for queue in QUEUES}
    queue = short.get(name, name)
    if queue not in QUEUES:
        raise BadInput(f"there is no queue {name!r}", field="queue", fix=f"use {', '.join(short)}")
    return queue


async def _status() -> dict[str, Any]:
    from infra import governor, operations
    from infra.ops import dead_counts, scaling_of
    from infra.queue_insight import insight, type_rows
    from schemas.registry import QUEUES

    async with owner_database() as database, database.connection() as connection, open_client() as client:
        dead = await dead_counts(database)
        found = [await insight(client, queue) for queue in QUEUES]
        return {
            "queues": [scaling_of(one, dead.get(one.queue, 0)) for one in found],
            "types": type_rows(found),
            "events": await operations.counts(connection),
            "models": [asdict(one) for one in await governor.insight(client)],
        }


def status(
    as_json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again every second until Ctrl-C.")
    ] = False,
) -> None:
    """Show what waits, runs and died, per queue and per event type."""
    columns = ("queue", "ready", "deferred", "running", "oldest_ready_seconds", "dead", "paused")

    async def show() -> None:
        while True:
            found = await _status()
            if as_json:
                print_json(found)
            else:
                if watch and is_terminal():
                    click.clear()
                print_rows(found["queues"], columns, as_json=False)
                typer.echo()
                if found["types"]:
                    print_rows(found["types"], ATTEMPTS, as_json=False)
                    typer.echo()
                print_rows(
                    found["events"],
                    ("type", "status", "events", "oldest"),
                    as_json=False,
                    empty="No unfinished or dead events.",
                )
                for one in found["models"]:
                    if one["paused"]:
                        typer.echo(f"\nCalls to {one['model']} are paused: {one['paused']}")
            if not watch:
                return
            await asyncio.sleep(1)

    run_async(show())


@events_app.command("list")
def list_events(
    tenant: Tenant = None,
    kind: Kind = None,
    state: Annotated[str | None, typer.Option("--status", help="Only this state.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List events, newest first."""

    async def find() -> list[dict[str, Any]]:
        from infra import operations

        async with owner_database() as database, database.connection() as connection:
            return await operations.list_events(
                connection, tenant=tenant, kind=kind, status=state, limit=limit
            )

    columns = ("event_id", "tenant_id", "type", "status", "attempts", "accepted_at", "subject")
    print_rows(run_async(find()), columns, as_json=as_json, empty="No events.")


async def find_event(event_id: UUID) -> dict[str, Any]:
    """One event of the ledger with its story."""
    from infra import operations

    async with owner_database() as database, database.connection() as connection:
        return await operations.show_event(connection, event_id)


@events_app.command("show")
def show_event(event_id: UUID, as_json: AsJson = False) -> None:
    """Show one event with its story and what it caused."""
    print_fields(run_async(find_event(event_id)), as_json=as_json)


@events_app.command("explain")
def explain_event(event_id: UUID) -> None:
    """Say in a sentence where an event stands and what happens next."""
    from infra import operations

    typer.echo(operations.explain(run_async(find_event(event_id)), now=datetime.now(UTC)))


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.command(rich_help_panel="Operate")(status)
    app.add_typer(events_app, name="events", rich_help_panel="Operate")

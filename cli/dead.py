"""Dead letters: look, replay, discard. For ledgered work the dead row of the ledger is the only dead letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from cli.operate import Kind, Limit, Tenant, find_event, open_client, queue_named
from cli.run import owner_database, run_async
from cli.show import AsJson, print_fields, print_rows

if TYPE_CHECKING:
    from infra.operations import DeadFilter

dead_app = typer.Typer(no_args_is_help=True, help="Dead letters: look, replay, discard.")


def _filter(
    *,
    tenant: str | None,
    queue: str | None,
    kind: str | None,
    error: str | None,
    since_hours: float | None,
    event: UUID | None,
) -> DeadFilter:
    from infra.operations import DeadFilter

    since = None if since_hours is None else datetime.now(UTC) - timedelta(hours=since_hours)
    return DeadFilter(tenant, None if queue is None else queue_named(queue), kind, error, since, event)


Queue = Annotated[str | None, typer.Option(help="Only this queue: ingest, answer, train or deliver.")]
ErrorCode = Annotated[str | None, typer.Option(help="Only this error code.")]
Since = Annotated[
    float | None, typer.Option("--since-hours", min=0, help="Only what died in the last so many hours.")
]
One = Annotated[UUID | None, typer.Option("--event", help="Only this event.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many.")]


@dead_app.command("list")
def list_dead(
    *,
    tenant: Tenant = None, queue: Queue = None, kind: Kind = None, error: ErrorCode = None, since_hours: Since = None,
    limit: Limit = 50, as_json: AsJson = False,
) -> None:  # fmt: skip
    """List dead events, newest first, with why they died."""
    which = _filter(tenant=tenant, queue=queue, kind=kind, error=error, since_hours=since_hours, event=None)

    async def find() -> list[dict[str, Any]]:
        from infra import operations

        async with owner_database() as database, database.connection() as connection:
            return await operations.list_dead(connection, which, limit=limit)

    rows = [
        {**row, "code": row["error"]["code"], "message": row["error"]["message"]} for row in run_async(find())
    ]
    columns = ("event_id", "tenant_id", "type", "code", "message", "attempts", "dead_at")
    print_rows(rows, columns, as_json=as_json, empty="No dead events.")


@dead_app.command("show")
def show_dead(event_id: UUID, as_json: AsJson = False) -> None:
    """Show one dead event with its story."""
    print_fields(run_async(find_event(event_id)), as_json=as_json)


@dead_app.command("replay")
def replay_dead(
    *,
    tenant: Tenant = None, queue: Queue = None, kind: Kind = None, error: ErrorCode = None, since_hours: Since = None,
    event: One = None, limit: Limit = 1000,
    per_second: Annotated[float, typer.Option(min=0.01, help="Stagger: so many events per second.")] = 50.0,
    dry_run: DryRun = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Bring dead events back onto their queues."""
    which = _filter(tenant=tenant, queue=queue, kind=kind, error=error, since_hours=since_hours, event=event)

    async def act() -> tuple[int, int]:
        from infra import operations

        async with owner_database() as database, database.connection() as connection, open_client() as client:
            found = await operations.list_dead(connection, which, limit=limit)
            return len(found), 0 if dry_run else await operations.replay(
                connection, client, found, per_second=per_second
            )

    found, done = run_async(act())
    print_fields({"matched": found, "replayed": done}, as_json=as_json)


@dead_app.command("discard")
def discard_dead(
    *,
    tenant: Tenant = None, queue: Queue = None, kind: Kind = None, error: ErrorCode = None, since_hours: Since = None,
    event: One = None, limit: Limit = 1000, dry_run: DryRun = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Take dead events off the list; their rows stay in the ledger until retention."""
    which = _filter(tenant=tenant, queue=queue, kind=kind, error=error, since_hours=since_hours, event=event)

    async def act() -> tuple[int, int]:
        from infra import operations

        async with owner_database() as database, database.connection() as connection:
            found = await operations.list_dead(connection, which, limit=limit)
            return len(found), 0 if dry_run else await operations.discard(connection, found)

    found, done = run_async(act())
    print_fields({"matched": found, "discarded": done}, as_json=as_json)


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.add_typer(dead_app, name="dead", rich_help_panel="Operate")

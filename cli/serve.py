"""The commands that serve: worker, gateway, migrate, maintain."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.run import run_async, serving_settings, start_logging, tie_to_owner

if TYPE_CHECKING:
    from infra.settings import Settings

COMMAND = (sys.executable, "-m", "cli.main")
POOLS = ("ingest", "answer", "train", "deliver")


def worker(
    pool: Annotated[
        str, typer.Argument(help="ingest, answer, train, deliver, or all four in one process: all.")
    ],
    concurrency: Annotated[int | None, typer.Option(min=1, help="Jobs that a process holds at once.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes under one supervisor.")] = 1,
    burst: Annotated[bool, typer.Option(help="Stop when the queue is empty.")] = False,
    solo: Annotated[bool, typer.Option(hidden=True, help="Run the one job that the parent sends.")] = False,
) -> None:
    """Run a pool of workers until SIGTERM; running jobs get a grace time, the rest goes back to the queue."""
    if pool not in {*POOLS, "all"}:
        raise typer.BadParameter(f"{pool!r} is not a pool; use {', '.join(POOLS)} or all", param_hint="POOL")
    overrides = {} if concurrency is None else {"concurrency": concurrency}
    settings = serving_settings(**overrides)
    _need_servers(settings)
    start_logging(settings)
    if solo:
        from workers.host import run_one

        run_async(run_one(settings, pool))
        return
    if processes > 1:
        from workers.engine.supervisor import supervise

        tie_to_owner()
        command = [
            *COMMAND,
            "worker",
            pool,
            *([] if concurrency is None else ["--concurrency", str(concurrency)]),
        ]
        raise typer.Exit(supervise([*command, "--burst"] if burst else command, processes=processes))
    run_async(_work(settings, POOLS if pool == "all" else (pool,), burst=burst))


def _need_servers(settings: Settings) -> None:
    """Name the setting that is missing before anything is connected to."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        settings.need(name)


async def _work(settings: Settings, names: Sequence[str], *, burst: bool) -> None:
    from infra.ops import serve_ops
    from workers.engine.supervisor import follow_supervisor, is_supervised
    from workers.host import open_host, run_host

    if is_supervised():
        follow_supervisor()
    else:
        tie_to_owner()
    async with (
        open_host(
            settings, names, burst=burst, isolate=lambda pool: [*COMMAND, "worker", pool, "--solo"]
        ) as host,
        serve_ops(settings.ops_host, settings.ops_port, host.ops()),
    ):
        await run_host(host)


def gateway() -> None:
    """Serve the HTTP API and the ops port until SIGTERM."""
    tie_to_owner()
    settings = serving_settings()
    _need_servers(settings)
    start_logging(settings)
    from producers.gateway.server import serve

    run_async(serve(settings))


def migrate() -> None:
    """Bring the database to the newest schema; safe to run again, and from several places at once."""
    settings = serving_settings()
    start_logging(settings, form="console")
    from infra.migrate import migrate as run_migrations

    applied = run_async(
        run_migrations(
            settings.need("PENSTOCK_DATABASE_OWNER_URL"), serving_url=settings.need("DATABASE_URL")
        )
    )
    typer.echo(f"applied {', '.join(applied)}" if applied else "the schema is up to date")


def maintain(
    once: Annotated[bool, typer.Option(help="Do what is due now and stop.")] = False,
) -> None:
    """Do what only the owner may: partitions ahead of time, retention, indexes. Runs until SIGTERM."""
    tie_to_owner()
    settings = serving_settings()
    start_logging(settings)
    from infra.maintain import Maintainer

    run_async(Maintainer(settings.need("PENSTOCK_DATABASE_OWNER_URL")).run(once=once))


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.command(rich_help_panel="Serve")(worker)
    app.command(rich_help_panel="Serve")(gateway)
    app.command(rich_help_panel="Serve")(migrate)
    app.command(rich_help_panel="Serve")(maintain)

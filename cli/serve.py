"""The commands that serve: worker, gateway, migrate, maintain."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.run import run_async, serving_settings, start_logging, tie_to_owner

if TYPE_CHECKING:
    from infra.ops import OpsPort
    from infra.settings import Settings

COMMAND = (sys.executable, "-m", "cli.main")
OPS_FOLDER = "PENSTOCK_OPS_FOLDER"
"""Set for the processes of a supervisor: where their sockets are through which its ops port asks them."""
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
        tie_to_owner()
        command = [
            *COMMAND,
            "worker",
            pool,
            *([] if concurrency is None else ["--concurrency", str(concurrency)]),
        ]
        command += ["--burst"] if burst else []
        raise typer.Exit(run_async(_supervise(settings, command, processes)))
    run_async(_work(settings, POOLS if pool == "all" else (pool,), burst=burst))


def _need_servers(settings: Settings) -> None:
    """Name the setting that is missing before anything is connected to."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        settings.need(name)


async def _supervise(settings: Settings, command: Sequence[str], processes: int) -> int:
    """Run the processes of a pool under one supervisor, with one ops port for all of them."""
    from infra.ops_fleet import serve_fleet
    from workers.engine.supervisor import Supervisor

    # Short, and ours alone: a socket's path has about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        environment = {**os.environ, OPS_FOLDER: folder}
        async with serve_fleet(settings.ops_host, settings.ops_port, Path(folder), processes):
            return await Supervisor(command, processes=processes, environment=environment).run()


def _serve_ops(settings: Settings, ops: OpsPort) -> AbstractAsyncContextManager[object]:
    """The ops port of this process; under a supervisor, which has the port, a socket."""
    from infra.ops import serve_ops, serve_ops_on_socket
    from infra.ops_fleet import socket_of
    from workers.engine.supervisor import index_of_process

    folder = os.environ.get(OPS_FOLDER)
    if folder is None:
        return serve_ops(settings.ops_host, settings.ops_port, ops)
    return serve_ops_on_socket(socket_of(Path(folder), index_of_process()), ops)


async def _work(settings: Settings, names: Sequence[str], *, burst: bool) -> None:
    from workers import heap
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
        _serve_ops(settings, host.ops()),
    ):
        heap.settle()
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
    """Do what only the owner may: partitions ahead of time, retention, indexes, sealing again. Runs until SIGTERM."""
    tie_to_owner()
    settings = serving_settings()
    start_logging(settings)
    from infra.maintain import Maintainer
    from infra.secretbox import SecretBox

    keys = settings.secret_keys
    box = None if keys is None else SecretBox.from_keys(keys.get_secret_value())
    run_async(Maintainer(settings.need("PENSTOCK_DATABASE_OWNER_URL"), box=box).run(once=once))


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.command(rich_help_panel="Serve")(worker)
    app.command(rich_help_panel="Serve")(gateway)
    app.command(rich_help_panel="Serve")(migrate)
    app.command(rich_help_panel="Serve")(maintain)

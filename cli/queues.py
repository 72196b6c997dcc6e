"""Queues: list, pause, resume, drain, rebuild. Ledgered work is never lost by any of them."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Any

import typer

from cli.operate import open_client, queue_named
from cli.run import run_async, serving_settings
from cli.show import AsJson, print_json, print_rows

queues_app = typer.Typer(no_args_is_help=True, help="List, pause, resume, drain or rebuild queues.")
COLUMNS = ("queue", "ready", "lanes", "deferred", "running", "oldest_ready_seconds", "dead", "paused")


@queues_app.command("list")
def list_queues(as_json: AsJson = False) -> None:
    """List the queues as Redis has them; `lanes` wait for their turn, `dead` are jobs without a ledger row."""

    async def find() -> list[dict[str, Any]]:
        from infra.queue_insight import insight
        from schemas.registry import QUEUES

        async with open_client() as client:
            found = [await insight(client, queue) for queue in QUEUES]
        return [{column: getattr(one, column) for column in COLUMNS} for one in found]

    print_rows(run_async(find()), COLUMNS, as_json=as_json)


@queues_app.command("pause")
def pause_queue(queue: str, as_json: AsJson = False) -> None:
    """Let no worker claim from a queue; what runs goes on, what arrives waits."""
    _set_paused(queue_named(queue), paused=True, as_json=as_json)


@queues_app.command("resume")
def resume_queue(queue: str, as_json: AsJson = False) -> None:
    """Let workers claim again."""
    _set_paused(queue_named(queue), paused=False, as_json=as_json)


def _set_paused(queue: str, *, paused: bool, as_json: bool) -> None:
    async def act() -> None:
        from infra import queue_insight

        async with open_client() as client:
            await (queue_insight.pause if paused else queue_insight.resume)(client, queue)

    run_async(act())
    _say({"queue": queue, "paused": paused}, f"{queue}: {'paused' if paused else 'resumed'}", as_json=as_json)


@queues_app.command("drain")
def drain_queue(
    queue: str,
    timeout: Annotated[float, typer.Option(min=0, help="Give up after so many seconds.")] = math.inf,
    as_json: AsJson = False,
) -> None:
    """Wait until nothing of a queue is ready or running; exit 1 when the time is over."""
    name = queue_named(queue)

    async def wait() -> int:
        from infra.queue_insight import insight

        deadline = asyncio.get_running_loop().time() + timeout
        async with open_client() as client:
            while True:
                found = await insight(client, name)
                left = found.ready + found.running
                if left == 0 or asyncio.get_running_loop().time() >= deadline:
                    return left
                await asyncio.sleep(0.5)

    left = run_async(wait())
    text = f"{name}: drained" if left == 0 else f"{name}: {left} left"
    _say({"queue": name, "drained": left == 0, "left": left}, text, as_json=as_json)
    if left:
        raise typer.Exit(1)


@queues_app.command("rebuild")
def rebuild_queues(as_json: AsJson = False) -> None:
    """Fill Redis again from the ledger: pushes every unfinished event; what is there keeps its place."""

    async def act() -> int:
        from infra.database import Database
        from infra.sweeper import EPOCH, Sweeper

        settings = serving_settings()
        async with (
            Database.open(settings.need("DATABASE_URL"), role="penstock_system", size=1) as database,
            open_client() as client,
        ):
            await client.delete(EPOCH)
            return await Sweeper(database, client, name="penstock queues rebuild").round()

    pushed = run_async(act())
    _say({"pushed": pushed}, f"pushed {pushed} events that were missing", as_json=as_json)


def _say(fields: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(fields)
    else:
        typer.echo(text)


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.add_typer(queues_app, name="queues", rich_help_panel="Operate")

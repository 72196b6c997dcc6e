"""How fast the model API is called, and why it is not: an operator looks here, and lets paused calls go on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from cli.operate import open_client
from cli.run import run_async
from cli.show import AsJson, print_rows

app = typer.Typer(no_args_is_help=True, help="Look at the pace of calls to the model API, or end a pause.")


@app.command("show")
def show(as_json: AsJson = False) -> None:
    """Show limits, calls under way and pauses, per model."""

    async def find() -> list[dict[str, Any]]:
        from infra import governor

        async with open_client() as client:
            return [asdict(one) for one in await governor.insight(client)]

    columns = ("model", "requests", "tokens", "window", "under_way", "blocked", "refusals", "paused")
    print_rows(run_async(find()), columns, as_json=as_json, empty="No model was called lately.")


@app.command("resume")
def resume() -> None:
    """End a pause after a wrong key or an empty account was mended; a cause that is still there pauses again."""

    async def act() -> int:
        from infra import governor

        async with open_client() as client:
            return await governor.resume(client)

    typer.echo(f"ended {run_async(act())} pauses")


def add_to(parent: typer.Typer) -> None:
    """Mount the commands."""
    parent.add_typer(app, name="governor", rich_help_panel="Operate")

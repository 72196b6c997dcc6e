"""Embedding spaces and their vector indexes: an operator looks at them, and puts an index off for a backfill."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.run import owner_database, run_async
from cli.show import AsJson, print_fields, print_rows

app = typer.Typer(
    no_args_is_help=True,
    help="Look at embedding spaces, put off a vector index for a backfill, or delete what nobody searches.",
)
SpaceId = Annotated[int, typer.Argument(help="As `penstock spaces list` shows it.")]


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List spaces with their vectors (counted until an index pays) and what becomes of their index."""

    async def find() -> list[dict[str, Any]]:
        from infra.index_policy import decide, threshold
        from infra.spaces import list_spaces

        async with owner_database() as database, database.connection() as connection:
            return [
                {**asdict(one), "index_from": threshold(one.dimensions), "next": str(decide(one))}
                for one in await list_spaces(connection)
            ]

    columns = ("space_id", "model", "dimensions", "rows", "index_from", "policy", "valid", "next")
    print_rows(run_async(find()), columns, as_json=as_json, empty="No embedding spaces.")


@app.command("defer")
def defer(space: SpaceId) -> None:
    """Drop the index and build none until `auto`: a backfill is then many times faster, searches are exact and slower."""
    _set(space, "deferred")


@app.command("auto")
def auto(space: SpaceId) -> None:
    """Let `penstock maintain` build the index when the space is large enough for one."""
    _set(space, "auto")


@app.command("clean")
def clean(
    space: SpaceId,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count; delete nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete vectors of collections that `collections reembed` has moved to another space: they cannot go back for free.

    Not while a collection is being moved into this space: what it has paid for so far would be deleted too.
    """

    async def act() -> int:
        from infra.spaces import clean

        async with owner_database() as database, database.connection() as connection:
            return await clean(connection, space, dry_run=dry_run)

    state = "dry run" if dry_run else "deleted"
    print_fields({"space_id": space, "vectors": run_async(act()), "state": state}, as_json=as_json)


def _set(space: int, policy: str) -> None:
    async def act() -> None:
        from infra.index_policy import Policy
        from infra.spaces import set_policy

        async with owner_database() as database, database.connection() as connection:
            await set_policy(connection, space, Policy(policy))

    run_async(act())
    typer.echo(f"space {space}: {policy}; penstock maintain sees to it within a minute")


def add_to(parent: typer.Typer) -> None:
    """Mount the commands."""
    parent.add_typer(app, name="spaces", rich_help_panel="Operate")

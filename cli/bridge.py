"""`penstock bridge`: a Redis stream is read for one tenant."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.run import run_async, serving_settings, start_logging, tie_to_owner


def bridge(
    *,
    stream: Annotated[str, typer.Option(help="The stream's key in Redis.")],
    tenant: Annotated[str, typer.Option(help="Whose events its entries become.")],
    group: Annotated[
        str, typer.Option(help="The consumer group; bridges of one group share the work.")
    ] = "penstock",
    batch: Annotated[int, typer.Option(min=1, max=500, help="Entries per read and per transaction.")] = 200,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave entries in the stream; whoever publishes trims it.")
    ] = False,
) -> None:
    """Enter a Redis stream's entries in the ledger until SIGTERM; see docs/bridge.md for how to publish."""
    tie_to_owner()
    settings = serving_settings()
    for name in ("DATABASE_URL", "REDIS_URL"):
        settings.need(name)
    start_logging(settings)
    from producers.stream.bridge import Source
    from producers.stream.serve import consumer_name, serve_bridge

    source = Source(stream, tenant, group, consumer_name(), batch=batch, idle=settings.lease, keep=keep)
    run_async(serve_bridge(settings, source))


def add_to(app: typer.Typer) -> None:
    """Mount the command."""
    app.command(rich_help_panel="Serve")(bridge)

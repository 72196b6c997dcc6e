"""Client commands are mounted here: everything that speaks HTTP to a gateway, with a tenant's key."""

from __future__ import annotations

import typer

from cli import client_ask, client_datasets, client_publish, client_settings, client_webhooks, reembed

PANEL = "Use (HTTP)"


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.add_typer(client_publish.app, name="publish", rich_help_panel=PANEL)
    app.command("ask", rich_help_panel=PANEL)(client_ask.ask)
    app.command("search", rich_help_panel=PANEL)(client_ask.search)
    app.add_typer(client_webhooks.app, name="webhooks", rich_help_panel=PANEL)
    client_settings.collections_app.command("reembed")(reembed.reembed)
    app.add_typer(client_settings.collections_app, name="collections", rich_help_panel=PANEL)
    app.add_typer(client_datasets.app, name="datasets", rich_help_panel=PANEL)
    app.add_typer(client_settings.templates_app, name="templates", rich_help_panel=PANEL)
    app.add_typer(client_settings.models_app, name="models", rich_help_panel=PANEL)

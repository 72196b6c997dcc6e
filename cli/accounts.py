"""Tenants, API keys and what was used: operator commands on the owner's connection."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.run import owner_database, run_async
from cli.show import AsJson, print_fields, print_rows
from schemas.errors import BadInput

tenants_app = typer.Typer(no_args_is_help=True, help="Tenants: whose data is whose.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys of the HTTP API; a secret is shown once.")
TENANT_COLUMNS = ("tenant_id", "title", "created_at", "suspended_at")
KEY_COLUMNS = (
    "key_id",
    "tenant_id",
    "title",
    "scopes",
    "created_at",
    "expires_at",
    "revoked_at",
    "last_used_at",
    "rate_per_minute",
)


@tenants_app.command("create")
def create(
    tenant: str,
    title: Annotated[str, typer.Option(help="A name for people.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Create a tenant."""

    async def act() -> dict[str, Any]:
        from infra.tenants import create_tenant

        async with owner_database() as database, database.connection() as connection:
            return (await create_tenant(connection, tenant, title=title)).as_dict()

    print_fields(run_async(act()), as_json=as_json)


@tenants_app.command("list")
def list_all(*, as_json: AsJson = False) -> None:
    """List all tenants."""

    async def find() -> list[dict[str, Any]]:
        from infra.tenants import list_tenants

        async with owner_database() as database, database.connection() as connection:
            return [one.as_dict() for one in await list_tenants(connection)]

    print_rows(
        run_async(find()),
        TENANT_COLUMNS,
        as_json=as_json,
        empty="No tenants. `penstock tenants create NAME` makes one.",
    )


@tenants_app.command("show")
def show(tenant: str, *, as_json: AsJson = False) -> None:
    """Show one tenant with its limits."""

    async def find() -> dict[str, Any]:
        from infra.tenants import show_tenant

        async with owner_database() as database, database.connection() as connection:
            return (await show_tenant(connection, tenant)).as_dict()

    print_fields(run_async(find()), as_json=as_json)


@tenants_app.command("suspend")
def suspend(
    tenant: str,
    resume: Annotated[bool, typer.Option(help="Let it in again.")] = False,
    *,
    as_json: AsJson = False,
) -> None:
    """Refuse a tenant's keys within a second; nothing of its data changes."""

    async def act() -> dict[str, Any]:
        from infra.tenants import suspend_tenant

        async with owner_database() as database, database.connection() as connection:
            return (await suspend_tenant(connection, tenant, suspended=not resume)).as_dict()

    print_fields(run_async(act()), as_json=as_json)


@tenants_app.command("limits")
def limits(
    tenant: str,
    put: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=NUMBER", help="Set a limit, such as documents=10000."),
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take a limit away; the default is back.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what a tenant may have and has, or change it; a change counts within a second."""
    changes = dict(_limit(text) for text in put or ())

    async def act() -> list[dict[str, Any]]:
        from infra.limits import SENTENCES
        from infra.limits import usage as count
        from infra.tenants import set_limits, show_tenant

        async with owner_database() as database, database.connection() as connection:
            if changes or unset:
                now = await set_limits(connection, tenant, changes, unset=unset or ())
            else:
                now = await show_tenant(connection, tenant)
            used = await count(connection, tenant)
        return [
            {"limit": name, "allowed": now.limits.get(name), "used": used.get(name), "counts": sentence}
            for name, sentence in SENTENCES.items()
        ]

    print_rows(run_async(act()), ("limit", "allowed", "used", "counts"), as_json=as_json, empty="No limits.")


def _limit(text: str) -> tuple[str, float | int | None]:
    name, _, value = text.partition("=")
    if value == "unlimited":
        return name, None
    try:
        return name, float(value) if "." in value else int(value)
    except ValueError:
        raise BadInput(
            f"{name[:40]} needs a number", field="set", fix="write it as documents=10000"
        ) from None


@keys_app.command("create")
def create_key(
    *,
    tenant: Annotated[str, typer.Option(help="Whose key.")],
    scope: Annotated[
        list[str], typer.Option(help="publish, query, feedback, train, admin or ops; give it several times.")
    ],
    title: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires: Annotated[datetime | None, typer.Option(help="When it ends (UTC); never unless given.")] = None,
    rate: Annotated[
        int | None, typer.Option(min=1, help="Requests a minute; the tenant's or the gateway's unless given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and show its secret, this once."""
    until = None if expires is None else expires.replace(tzinfo=UTC)
    if until is not None and until <= datetime.now(UTC):
        raise BadInput(
            "the key would have expired already", field="expires", fix="give a time in the future, in UTC"
        )

    async def act() -> dict[str, Any]:
        from infra.keys import create_key as make

        async with owner_database() as database, database.connection() as connection:
            made = await make(connection, tenant, scope, title=title, expires_at=until, rate_per_minute=rate)
            return made.as_dict()

    made = run_async(act())
    print_fields(made, as_json=as_json)
    if not as_json:
        typer.echo("\nKeep the key now: only its hash is stored.")


@keys_app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, *, as_json: AsJson = False
) -> None:
    """List keys, without their secrets."""

    async def find() -> list[dict[str, Any]]:
        from infra.keys import list_keys as every

        async with owner_database() as database, database.connection() as connection:
            return [one.as_dict() for one in await every(connection, tenant)]

    print_rows(run_async(find()), KEY_COLUMNS, as_json=as_json, empty="No keys.")


@keys_app.command("revoke")
def revoke(key_id: str, *, as_json: AsJson = False) -> None:
    """Refuse a key within a second."""

    async def act() -> dict[str, Any]:
        from infra.keys import revoke_key

        async with owner_database() as database, database.connection() as connection:
            return (await revoke_key(connection, key_id)).as_dict()

    print_fields(run_async(act()), as_json=as_json)


class UsageBy(StrEnum):
    """What usage is added up by."""

    DAY = "day"
    COLLECTION = "collection"
    DOCUMENT = "document"


USAGE = {
    UsageBy.DAY: "day tenant_id purpose model calls tokens_in tokens_out cost_usd wasted_usd",
    UsageBy.COLLECTION: "tenant_id collection documents embedded_tokens cost_usd",
    UsageBy.DOCUMENT: "tenant_id collection document_id embedded_tokens cost_usd",
}


def usage(
    *,
    by: Annotated[UsageBy, typer.Option(help="What to add up by.")] = UsageBy.DAY,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    collection: Annotated[str | None, typer.Option(help="Only this one, by collection or document.")] = None,
    days: Annotated[int, typer.Option(min=1, help="By day: today and the days before, so many.")] = 7,
    limit: Annotated[int, typer.Option(min=1, help="By collection or document: the dearest so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show calls, tokens and cost per tenant and day; or what embedding collections and documents has cost so far."""
    since: date = datetime.now(UTC).date() - timedelta(days=days - 1)

    async def find() -> list[dict[str, Any]]:
        from infra.database import queries

        sql = queries("operations")
        async with owner_database() as database, database.connection() as connection:
            if by is not UsageBy.DAY:
                wanted = {
                    UsageBy.COLLECTION: sql.usage_of_collections,
                    UsageBy.DOCUMENT: sql.usage_of_documents,
                }[by]
                return [dict(row) for row in await connection.fetch(wanted, tenant, collection, limit)]
            rows = await connection.fetch(sql.usage, tenant, since)
            # Money is counted in whole millionths: as floats they are read as what they are, not as 0E-24.
            return [
                {**row, "cost_usd": float(row["cost_usd"]), "wasted_usd": float(row["wasted_usd"])}
                for row in rows
            ]

    rows = run_async(find())
    print_rows(rows, tuple(USAGE[by].split()), as_json=as_json, empty="Nothing was used.")


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.add_typer(tenants_app, name="tenants", rich_help_panel="Accounts")
    app.add_typer(keys_app, name="keys", rich_help_panel="Accounts")
    app.command(rich_help_panel="Accounts")(usage)

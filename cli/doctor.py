"""`penstock doctor`: which servers are used, whether they can keep the promises, and what to change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

from cli.run import FAILED, run_async, serving_settings
from cli.show import AsJson, print_json
from schemas.errors import Misconfigured, PenstockError

if TYPE_CHECKING:
    from infra.database import Connection
    from infra.settings import Settings

PGVECTOR = (0, 8, 4)
TENANT_TABLES_WITHOUT_RLS = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT c.relrowsecurity
  AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        ok: whether it is as it must be.
        found: what was found.
        fix: what to change; empty when ok.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""


async def examine(settings: Settings) -> list[Check]:
    """Look at every server that is configured; a failure of one does not hide the others."""
    return [*await _postgres(settings), *await _redis(settings), *await _models(settings), _secrets(settings)]


async def _postgres(settings: Settings) -> list[Check]:
    from infra.database import Database, translated

    checks: list[Check] = []
    try:
        url = settings.need("DATABASE_URL")
        async with Database.open(url, role=None, size=1, application="penstock doctor") as database:
            with translated():
                async with database.pool.acquire() as connection:
                    checks += await _server(connection)
                    checks += await _roles(connection)
        checks += await _schema(settings)
    except PenstockError as error:
        checks.append(_failed("PostgreSQL", error))
    return checks


async def _server(connection: Connection) -> list[Check]:
    version = await connection.fetchval("SELECT current_setting('server_version')")
    vector = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    parts = tuple(int(part) for part in re.findall(r"\d+", vector or "")[:3])
    durable = {
        name: await connection.fetchval("SELECT current_setting($1)", name)
        for name in ("fsync", "synchronous_commit", "full_page_writes")
    }
    weak = [name for name, value in durable.items() if value == "off"]
    return [
        Check("PostgreSQL", int(version.split(".")[0]) >= 16, version, "" if int(version.split(".")[0]) >= 16 else "use 16 or later"),
        Check(
            "pgvector", parts >= PGVECTOR, vector or "not installed",
            "" if parts >= PGVECTOR else "install 0.8.4 or later and run ALTER EXTENSION vector UPDATE",
        ),
        Check(
            "PostgreSQL durability", not weak, "on" if not weak else f"{', '.join(weak)} off",
            "" if not weak else f"set {', '.join(weak)} = on: an accepted event must survive a crash",
        ),
    ]  # fmt: skip


async def _roles(connection: Connection) -> list[Check]:
    from infra.database import ROLES

    me = await connection.fetchrow(
        "SELECT session_user AS login, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = session_user"
    )
    assert me is not None
    exempt = me["rolsuper"] or me["rolbypassrls"]
    missing = [
        role
        for role in ROLES
        if not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AND pg_has_role(session_user, $1, 'SET')",
            role,
        )
    ]
    owns = await connection.fetchval(
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tableowner = session_user"
    )
    open_tables = [row["relname"] for row in await connection.fetch(TENANT_TABLES_WITHOUT_RLS)]
    subject = not exempt and not owns and not open_tables
    found = f"login {me['login']}" + (", exempt" if exempt else "") + (", owns tables" if owns else "")
    found += f", not on {', '.join(open_tables)}" if open_tables else ""
    return [
        Check(
            "row-level security", subject, found if not subject else f"{found}, subject to it",
            "" if subject else "serve with a login that owns nothing, is no superuser and lacks BYPASSRLS",
        ),
        Check(
            "serving roles", not missing, "all three" if not missing else f"may not act as {', '.join(missing)}",
            "" if not missing else "run `penstock migrate`",
        ),
    ]  # fmt: skip


async def _schema(settings: Settings) -> list[Check]:
    from infra.database import Database
    from infra.migrate import check_schema, load_migrations

    try:
        async with (
            Database.open(settings.need("DATABASE_URL"), role="penstock_system", size=1) as database,
            database.connection() as connection,
        ):
            await check_schema(connection)
    except PenstockError as error:
        return [_failed("schema", error)]
    return [Check("schema", ok=True, found=f"{len(load_migrations())} migrations, up to date")]


async def _redis(settings: Settings) -> list[Check]:
    from redis.exceptions import RedisError

    from infra.bus import open_redis

    try:
        client = open_redis(settings.need("REDIS_URL"))
    except Misconfigured as error:
        return [_failed("Redis", error)]
    try:
        about: Mapping[str, Any] = await client.info()
    except (RedisError, OSError) as error:
        return [
            Check(
                "Redis",
                ok=False,
                found=f"cannot be reached ({type(error).__name__})",
                fix="check REDIS_URL and the server",
            )
        ]
    finally:
        await client.aclose(close_connection_pool=True)
    name = (
        f"Valkey {about['valkey_version']}"
        if "valkey_version" in about
        else f"Redis {about['redis_version']}"
    )
    persists = bool(int(about["aof_enabled"]))
    policy = about["maxmemory_policy"]
    cluster = bool(int(about.get("cluster_enabled", 0)))
    return [
        Check("Redis", not cluster, name + (", cluster" if cluster else ""), "use one primary; Redis Cluster is not supported" if cluster else ""),
        Check(
            "Redis persistence", persists, "append-only file on" if persists else "append-only file off",
            "" if persists else "set appendonly yes: without it a restart is refilled from the ledger, later",
        ),
        Check("Redis memory policy", policy == "noeviction", policy, "" if policy == "noeviction" else "set maxmemory-policy noeviction"),
    ]  # fmt: skip


async def _models(settings: Settings) -> list[Check]:
    from infra.llm import ModelApi

    checks: list[Check] = []
    try:
        key = settings.need("OPENAI_API_KEY")
        async with ModelApi.open(settings.openai_base_url, key, timeout=10.0) as models:
            checks += [await _model(models, name) for name in (settings.embed_model, settings.chat_model)]
    except PenstockError as error:
        checks.append(_failed("model API", error))
    return checks


async def _model(models: Any, name: str) -> Check:
    try:
        found = await models.model(name)
    except PenstockError as error:
        return _failed(f"model {name}", error)
    ends = f", ends {found.shutdown_date}" if found is not None and found.shutdown_date else ""
    return Check(
        f"model {name}",
        found is not None,
        f"available{ends}" if found else "not found",
        "" if found else "set another model",
    )


def _secrets(settings: Settings) -> Check:
    from infra.secretbox import SecretBox

    try:
        SecretBox.from_keys(settings.need("PENSTOCK_SECRET_KEYS"))
    except PenstockError as error:
        return _failed("secrets at rest", error)
    return Check("secrets at rest", ok=True, found="keys are usable")


def _failed(name: str, error: PenstockError) -> Check:
    return Check(name, ok=False, found=error.message, fix=error.fix or "see docs/settings.md")


def doctor(as_json: AsJson = False) -> None:
    """Say which servers are used, whether they can keep the promises, and what to change; exit 1 when something is wrong."""
    checks = run_async(examine(serving_settings()))
    ok = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            typer.secho(
                f"{'ok  ' if check.ok else 'BAD '} {check.name}: {check.found}",
                fg=None if check.ok else typer.colors.RED,
            )
            if check.fix:
                typer.echo(f"     fix: {check.fix}")
    if not ok:
        raise typer.Exit(FAILED)


def add_to(app: typer.Typer) -> None:
    """Mount the command."""
    app.command(rich_help_panel="Start here")(doctor)

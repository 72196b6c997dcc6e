"""`penstock up` and `down`: a local stack for development, from nothing, owned by one process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.children import Children
from cli.run import STACK_FILE, run_async, start_logging
from schemas.errors import Unavailable

if TYPE_CHECKING:
    from infra.settings import Settings

TENANT = "dev"
POOLS = ("ingest", "answer", "train", "deliver")
DEV_FILE = "dev.env"
READY_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """A stack that is up.

    Attributes:
        environment: what children and other commands need to join it.
        embedded: which servers are ours: postgres and valkey, model.
    """

    environment: Mapping[str, str]
    embedded: frozenset[str]


@asynccontextmanager
async def embedded_servers(
    home: Path, given: Mapping[str, str], *, what: str, wipe_at_end: bool = False
) -> AsyncIterator[Running]:
    """Start what `given` does not configure: PostgreSQL and Valkey, and the model server.

    Args:
        home: the `.penstock` folder.
        given: DATABASE_URL, REDIS_URL, OPENAI_API_KEY and so on, as far as they are configured.
        what: what we are, for the message to a second owner.
        wipe_at_end: remove the data at the end.
    """
    from infra.local.model.server import ModelServer
    from infra.local.stack import LocalStack

    environment = dict(given)
    embedded: set[str] = set()
    async with AsyncExitStack() as held:
        # The lock on the home folder is held in any case: one owner per folder.
        stack = await held.enter_async_context(LocalStack.start(home, what=what, wipe_at_end=wipe_at_end))
        if "DATABASE_URL" not in given:
            embedded.add("postgres")
            environment["DATABASE_URL"] = stack.servers.database_url
            environment["PENSTOCK_DATABASE_OWNER_URL"] = stack.servers.database_owner_url
        if "REDIS_URL" not in given:
            embedded.add("valkey")
            environment["REDIS_URL"] = stack.servers.redis_url
        if "OPENAI_API_KEY" not in given and "OPENAI_BASE_URL" not in given:
            embedded.add("model")
            model = await held.enter_async_context(ModelServer.start(stack.folder.path / "model"))
            environment |= model_environment(model.base_url, model.api_key)
        environment.setdefault("PENSTOCK_SECRET_KEYS", _secret_key(stack.folder.path))
        environment.setdefault("PENSTOCK_EGRESS_ALLOW", "127.0.0.0/8:*,[::1]:*")
        environment["PENSTOCK_HOME"] = str(stack.folder.path)
        if "postgres" in embedded:
            from infra.migrate import migrate

            await migrate(environment["PENSTOCK_DATABASE_OWNER_URL"], serving_url=environment["DATABASE_URL"])
        yield Running(environment, frozenset(embedded))


def model_environment(base_url: str, api_key: str) -> dict[str, str]:
    """The settings that point Penstock to the local model server; its code cannot tell the difference."""
    return {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": api_key,
        "PENSTOCK_EMBED_MODEL": "local-embed-256",
        "PENSTOCK_EMBED_DIMENSIONS": "256",
        "PENSTOCK_CHAT_MODEL": "local-chat",
        "PENSTOCK_TRAIN_BASE_MODEL": "local-chat",
        "PENSTOCK_TRAIN_POLL": "1",
    }


def _secret_key(home: Path) -> str:
    """A key for secrets at rest that lives as long as the local data."""
    import base64
    import secrets

    path = home / "secret.key"
    if not path.exists():
        write_private(path, base64.b64encode(secrets.token_bytes(32)).decode())
    return path.read_text(encoding="utf-8").strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


async def make_tenant(owner_url: str, tenant: str, keys: Mapping[str, list[str]]) -> dict[str, str]:
    """Make a tenant unless it exists, and one new key per name with these scopes; returns name → secret."""
    from infra.database import Database
    from infra.keys import create_key
    from infra.tenants import create_tenant, list_tenants

    async with Database.open(owner_url, role=None, size=1) as database, database.connection() as connection:
        if tenant not in {one.tenant_id for one in await list_tenants(connection)}:
            await create_tenant(connection, tenant, title="local development")
        made = {
            name: await create_key(connection, tenant, scopes, title=name) for name, scopes in keys.items()
        }
    return {name: key.key for name, key in made.items()}


async def wait_until_ready(url: str, children: Children) -> None:
    """Wait until the gateway answers.

    Raises:
        Unavailable: it does not, or a child does not stay up; shows the end of its log.
    """
    import httpx2

    deadline = asyncio.get_running_loop().time() + READY_WITHIN
    async with httpx2.AsyncClient(trust_env=False, timeout=2.0) as client:
        while True:
            children.check()
            try:
                if (await client.get(f"{url}/healthz")).status_code == 200:
                    return
            except httpx2.HTTPError:
                if asyncio.get_running_loop().time() > deadline:
                    logs = children.children["gateway"].last_lines()
                    raise Unavailable(
                        f"the gateway did not start within {READY_WITHIN:g} s:\n{logs}"
                    ) from None
            await asyncio.sleep(0.1)


def up(
    port: Annotated[int | None, typer.Option(help="Port of the gateway; 8420 unless set.")] = None,
) -> None:
    """Start a local stack: embedded servers, gateway, all workers. Ctrl-C or `penstock down` stops it.

    A database, Redis or model API that is configured is used instead of the embedded one; only a database that was
    started here is migrated.
    """
    from infra.settings import load_settings

    settings = load_settings() if port is None else load_settings(gateway_port=port)
    start_logging(settings, form="console")
    run_async(_up(settings))


def configured(settings: Settings) -> dict[str, str]:
    """The servers that the caller configured, as environment variables."""
    names = ("DATABASE_URL", "PENSTOCK_DATABASE_OWNER_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    found: dict[str, str] = {}
    for name in names:
        value: Any = getattr(settings, name.removeprefix("PENSTOCK_").lower())
        if value is not None:
            found[name] = value if isinstance(value, str) else value.get_secret_value()
    return found


async def _up(settings: Settings) -> None:
    from infra.settings import load_settings

    home = settings.home.expanduser().resolve()
    inherited = {name: value for name, value in os.environ.items() if name.startswith("PENSTOCK_")}
    async with embedded_servers(home, {**inherited, **configured(settings)}, what="penstock up") as running:
        url = f"http://{settings.gateway_host}:{settings.gateway_port}"
        environment = {
            **os.environ,
            **running.environment,
            "PENSTOCK_GATEWAY_PORT": str(settings.gateway_port),
        }
        keys = await make_tenant(
            load_settings(**_as_overrides(running.environment)).need("PENSTOCK_DATABASE_OWNER_URL"),
            TENANT,
            {
                "api": ["publish", "query", "feedback"],
                "admin": ["publish", "query", "feedback", "train", "admin", "ops"],
            },
        )
        folder = Path(running.environment["PENSTOCK_HOME"])
        write_private(folder / STACK_FILE, json.dumps(dict(running.environment), indent=1))
        write_private(
            folder / DEV_FILE,
            f"PENSTOCK_URL={url}\nPENSTOCK_API_KEY={keys['api']}\nPENSTOCK_ADMIN_KEY={keys['admin']}\n",
        )
        children = Children(environment, folder / "logs", cwd=Path.cwd())
        try:
            await start_children(children)
            await wait_until_ready(url, children)
            _announce(url, keys["api"], running, folder)
            await _until_told(children)
        finally:
            typer.echo("stopping…", err=True)
            (folder / STACK_FILE).unlink(missing_ok=True)
            await children.stop()


def _as_overrides(environment: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix("PENSTOCK_").lower(): value for name, value in environment.items()}


async def start_children(children: Children) -> None:
    """Gateway, one process per pool, and maintain; workers pick free ops ports."""
    await children.start("gateway", "gateway")
    children_environment = ("--concurrency", "32")
    for pool in POOLS:
        await children.start(f"worker-{pool}", "worker", pool, *children_environment)
    await children.start("maintain", "maintain")


def _announce(url: str, key: str, running: Running, folder: Path) -> None:
    own = ", ".join(sorted(running.embedded)) or "none"
    typer.secho(f"\nPenstock is up at {url}", bold=True)
    typer.echo(f"  tenant    {TENANT}")
    typer.echo(f"  API key   {key}   (publish, query, feedback)")
    typer.echo(f"  embedded  {own}")
    typer.echo(f"  settings  {folder / DEV_FILE}   (client commands read it by themselves)")
    typer.echo(f"  logs      {folder / 'logs'}")
    typer.echo("\nTry:  penstock publish document README.md --collection docs")
    typer.echo('      penstock ask "What is Penstock?" --collection docs')
    typer.echo("\nCtrl-C or `penstock down` stops it; the data stays.\n")


async def _until_told(children: Children) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(signum, told.set)
    while not told.is_set():
        children.check()
        try:
            async with asyncio.timeout(1.0):
                await told.wait()
        except TimeoutError:
            continue


def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove the local data as well.")] = False,
) -> None:
    """Stop the local stack, also what a crash left behind; does nothing when nothing runs."""
    from infra.local.stack import stop
    from infra.local.stack import wipe as wipe_all
    from infra.settings import load_settings

    settings = load_settings()
    start_logging(settings, form="console")
    home = settings.home.expanduser().resolve()
    was_up = (wipe_all if wipe else stop)(home)
    if not wipe and home.is_dir():
        (home / STACK_FILE).unlink(missing_ok=True)
    typer.echo("stopped" if was_up else "nothing was running")


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.command(rich_help_panel="Start here")(up)
    app.command(rich_help_panel="Start here")(down)

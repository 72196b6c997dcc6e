"""The embedded stack passes through here to every test: real PostgreSQL, real Valkey, the real model server.

Servers start once per session in a folder of their own. Tests share a database and keep apart by tenants of their own;
a test that must see an empty database or break one asks for `fresh_database`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import hypothesis
import pytest
import redis.asyncio

from infra.budget import Budget
from infra.bus import Bus, open_redis
from infra.database import Database
from infra.llm import ModelApi
from infra.local.environment import child_environment, hostile_names
from infra.local.model.faults_client import Faults
from infra.local.servers import Servers
from infra.local.stack import LocalStack
from infra.migrate import migrate
from infra.prices import load_prices
from infra.settings import Settings, load_settings
from tests.drive import Drive
from workers.handling import Resources

if TYPE_CHECKING:
    from infra.local.model.server import ModelServer

# CI repeats what it did the last time; exploring is for people, who can act on what they find.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "explore")

SECRET_KEYS = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Take out whatever could lead a test to another server."""
    kept = {name: os.environ.pop(name) for name in hostile_names(os.environ)}
    yield
    os.environ.update(kept)


@dataclass(frozen=True, slots=True)
class Stack:
    """The session's servers, their database migrated."""

    local: LocalStack
    servers: Servers
    root: Path

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment of a child process that meets these servers and no others."""
        return child_environment(self.servers, extra={"PENSTOCK_HOME": str(self.root / ".penstock"), **extra})


def on_database(url: str, name: str) -> str:
    """The same server and login, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Both servers, started once; the schema is there and the serving login may act as the three roles."""
    root = tmp_path_factory.mktemp("stack")
    async with LocalStack.start(root, what="the tests", wipe_at_end=True) as local:
        servers = local.servers
        await migrate(servers.database_owner_url, serving_url=servers.database_url)
        owner = await asyncpg.connect(on_database(servers.superuser_url, "postgres"))
        await owner.execute("CREATE DATABASE penstock_template TEMPLATE penstock OWNER penstock_owner")
        await owner.close()
        yield Stack(local, servers, root)


@pytest.fixture
async def fresh_database(stack: Stack) -> AsyncIterator[Servers]:
    """An empty, migrated database of the test's own, on the same server."""
    name = f"test_{secrets.token_hex(6)}"
    superuser = await asyncpg.connect(on_database(stack.servers.superuser_url, "postgres"))
    await superuser.execute(f"CREATE DATABASE {name} TEMPLATE penstock_template OWNER penstock_owner")
    servers = stack.servers
    yield replace(
        servers,
        database_url=on_database(servers.database_url, name),
        database_owner_url=on_database(servers.database_owner_url, name),
        superuser_url=on_database(servers.superuser_url, name),
    )
    await superuser.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await superuser.close()


@pytest.fixture(scope="session")
async def worker_database(stack: Stack) -> AsyncIterator[Database]:
    """The shared database as a worker sees it."""
    async with Database.open(stack.servers.database_url, role="penstock_worker") as database:
        yield database


@pytest.fixture(scope="session")
async def gateway_database(stack: Stack) -> AsyncIterator[Database]:
    """The shared database as the gateway sees it."""
    async with Database.open(stack.servers.database_url, role="penstock_gateway") as database:
        yield database


@pytest.fixture(scope="session")
async def system_database(stack: Stack) -> AsyncIterator[Database]:
    """The shared database as the sweeper sees it."""
    async with Database.open(stack.servers.database_url, role="penstock_system", size=3) as database:
        yield database


@pytest.fixture(scope="session")
async def owner_database(stack: Stack) -> AsyncIterator[Database]:
    """The shared database as its owner sees it, for looking at what was written."""
    async with Database.open(stack.servers.database_owner_url, role=None, size=3) as database:
        yield database


NewTenant = Callable[[], Awaitable[str]]


@pytest.fixture(scope="session")
def new_tenant(owner_database: Database) -> NewTenant:
    """Makes tenants that nobody else uses."""

    async def make() -> str:
        tenant = f"t-{secrets.token_hex(6)}"
        async with owner_database.connection() as connection:
            await connection.execute("INSERT INTO tenants (tenant_id, title) VALUES ($1, 'test')", tenant)
        return tenant

    return make


@pytest.fixture
async def tenant(new_tenant: NewTenant) -> str:
    """A tenant of the test's own."""
    return await new_tenant()


@pytest.fixture
async def redis_client(stack: Stack) -> AsyncIterator[redis.asyncio.Redis]:
    """A client to an emptied Valkey."""
    client = open_redis(stack.servers.redis_url)
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture(scope="session")
async def _model_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ModelServer]:
    from infra.local.model.server import ModelServer  # noqa: PLC0415 - most tests need no model server

    async with ModelServer.start(tmp_path_factory.mktemp("model")) as server:
        yield server


@pytest.fixture
async def faults(_model_server: ModelServer) -> AsyncIterator[Faults]:
    """Switches faults on and counts calls; starts and ends without faults and with counts at zero."""
    async with Faults(_model_server.base_url) as client:
        await _calm(client)
        yield client
        await _calm(client)


async def _calm(client: Faults) -> None:
    await client.clear()
    await client.no_latency()
    await client.no_webhook()
    await client.train_seconds(0.3)
    await client.reset_calls()


@pytest.fixture
def model_server(_model_server: ModelServer, faults: Faults) -> ModelServer:
    """The local model server, without faults, its call counts at zero."""
    del faults
    return _model_server


@pytest.fixture
def settings(stack: Stack, model_server: ModelServer) -> Settings:
    """Settings that meet the test's servers."""
    return load_settings(
        _env_file=None,
        database_url=stack.servers.database_url,
        database_owner_url=stack.servers.database_owner_url,
        redis_url=stack.servers.redis_url,
        openai_base_url=model_server.base_url,
        openai_api_key=model_server.api_key,
        embed_model="local-embed-256",
        embed_dimensions=256,
        chat_model="local-chat",
        train_base_model="local-chat",
        secret_keys=SECRET_KEYS,
        egress_allow="127.0.0.0/8:*,[::1]:*",
        train_poll=0.2,
    )


@asynccontextmanager
async def open_resources(
    settings: Settings, database: Database, client: redis.asyncio.Redis
) -> AsyncIterator[Resources]:
    """What a pool gets, on the shared database."""
    async with AsyncExitStack() as held:
        models = await held.enter_async_context(
            ModelApi.open(
                settings.openai_base_url, settings.need("OPENAI_API_KEY"), timeout=settings.model_timeout
            )
        )
        bus = Bus(database, client)
        held.push_async_callback(bus.aclose)
        budget = Budget(database, load_prices(settings.prices), settings.budget_day, settings.budget_month)
        held.push_async_callback(budget.aclose)
        yield Resources(settings, database, client, bus, budget, models, "test-worker")


@pytest.fixture
async def resources(
    settings: Settings, worker_database: Database, redis_client: redis.asyncio.Redis
) -> AsyncIterator[Resources]:
    """What a pool gets, on the shared database."""
    async with open_resources(settings, worker_database, redis_client) as opened:
        yield opened


@pytest.fixture
async def drive(resources: Resources, owner_database: Database) -> AsyncIterator[Drive]:
    """Publishes events and runs handlers through the real runtime, without the engine's processes."""
    async with Drive.open(resources, owner_database) as opened:
        yield opened

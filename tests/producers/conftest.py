"""A gateway on a free port passes through here to the tests of this folder, real and over the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

import httpx2
import pytest
import redis.asyncio
from typer.testing import CliRunner, Result

from cli.main import app
from infra.database import Database
from infra.keys import create_key
from infra.local.model.server import ModelServer
from infra.settings import Settings
from producers.gateway.server import Serving, open_server
from tests.conftest import SECRET_KEYS, Stack
from tests.producers.bridges import Seen
from tests.producers.clients import ALL, Client, NewClient, Run


@pytest.fixture(scope="session")
async def gateway(stack: Stack, _model_server: ModelServer) -> AsyncIterator[Serving]:
    """A gateway that answers, the same for all tests: it keeps nothing between requests."""
    make = cast("Callable[..., Settings]", Settings)
    settings = make(
        _env_file=None,
        database_url=stack.servers.database_url,
        redis_url=stack.servers.redis_url,
        openai_base_url=_model_server.base_url,
        openai_api_key=_model_server.api_key,
        embed_model="local-embed-256",
        embed_dimensions=256,
        chat_model="local-chat",
        secret_keys=SECRET_KEYS,
        egress_allow="127.0.0.0/8:*,[::1]:*",
        gateway_port=0,
        ops_port=0,
        grace=2.0,
    )
    async with open_server(settings) as serving:
        yield serving


@pytest.fixture(autouse=True)
def _quiet_model_server(model_server: ModelServer) -> None:
    """No faults and no counts left over from the test before."""
    del model_server


@pytest.fixture
async def http(gateway: Serving) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a key."""
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def new_client(
    http: httpx2.AsyncClient, owner_database: Database, new_tenant: Callable[[], Awaitable[str]]
) -> NewClient:
    """Makes keys: of a new tenant unless one is given, with all scopes unless some are."""

    async def make(scopes: Sequence[str] = ALL, *, tenant: str | None = None) -> Client:
        owner = tenant or await new_tenant()
        async with owner_database.connection() as connection:
            key = await create_key(connection, owner, scopes)
        return Client(http, owner, key.key)

    return make


@pytest.fixture
async def client(new_client: NewClient) -> Client:
    """A key with all scopes for a tenant of the test's own."""
    return await new_client()


@pytest.fixture
def run(gateway: Serving, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command as a user of this tenant, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_URL", gateway.url)
    monkeypatch.setenv("PENSTOCK_API_KEY", client.key)

    async def invoke(*arguments: str, stdin: str | None = None) -> Result:
        # The gateway runs in this thread's loop.
        return await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments), input=stdin))

    return invoke


@pytest.fixture
def seen(owner_database: Database, tenant: str, redis_client: redis.asyncio.Redis) -> Seen:
    """Looks at what a bridge did."""
    return Seen(owner_database, tenant, redis_client)

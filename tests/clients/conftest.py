"""A gateway, and both clients of one tenant's key, pass through here to the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from infra.database import Database
from infra.keys import create_key
from penstock_client import AsyncClient
from producers.gateway.server import Serving
from tests.drive import Drive
from tests.producers.clients import ALL
from tests.producers.conftest import gateway as gateway  # noqa: PLC0414 - a fixture, used by name


@pytest.fixture
async def key(owner_database: Database, tenant: str) -> str:
    """A key with all scopes for a tenant of the test's own."""
    async with owner_database.connection() as connection:
        return (await create_key(connection, tenant, ALL)).key


@pytest.fixture
async def penstock(gateway: Serving, key: str) -> AsyncIterator[AsyncClient]:
    """The asynchronous client."""
    async with AsyncClient(gateway.url, key) as client:
        yield client


@pytest.fixture
async def wheels(drive: Drive) -> Drive:
    """Workers that run when they are told to."""
    await drive.use("ingest", "answer", "train")
    return drive

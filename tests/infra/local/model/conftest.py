"""The ordinary openai client, without retries, and the encoder that the server uses pass through here to the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from openai import AsyncOpenAI

from infra.local.model.reading import Reader
from infra.local.model.vectors import Encoder
from tests.infra.local.model.helpdesk import Desk, read_desk

if TYPE_CHECKING:
    from infra.local.model.faults_client import Faults
    from infra.local.model.server import ModelServer


@pytest.fixture(scope="session")
async def _client(_model_server: ModelServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=_model_server.base_url, api_key=_model_server.api_key, max_retries=0, timeout=30
    ) as opened:
        yield opened


@pytest.fixture
def client(_client: AsyncOpenAI, faults: Faults) -> AsyncOpenAI:
    """A client of the session's model server, which has no faults yet; every call is one request."""
    del faults
    return _client


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The weights, read once."""
    return Encoder.load()


@pytest.fixture(scope="session")
def reader(encoder: Encoder) -> Reader:
    """Reads passages with the same weights."""
    return Reader(encoder)


@pytest.fixture(scope="session")
def desk() -> Desk:
    """The help desk."""
    return read_desk()

"""What several tests of this folder stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from infra.llm import ModelApi
from infra.local.model.server import ModelServer
from tests.conftest import Stack
from tests.infra.two_tenants import TwoTenants, open_two_tenants


@pytest.fixture(scope="module")
async def two_tenants(stack: Stack) -> AsyncIterator[TwoTenants]:
    """Every tenant table, the vectors of a space included, with a row of each tenant; tests leave it as it is."""
    async with open_two_tenants(stack) as opened:
        yield opened


@pytest.fixture
async def models(model_server: ModelServer) -> AsyncIterator[ModelApi]:
    """The local model server through our client."""
    async with ModelApi.open(model_server.base_url, model_server.api_key, timeout=10) as opened:
        yield opened

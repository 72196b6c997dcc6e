"""Each story has a town of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.model.server import ModelServer
from infra.local.servers import Servers
from tests.stories.town import Town


@pytest.fixture
async def town(fresh_database: Servers, model_server: ModelServer, tmp_path: Path) -> AsyncIterator[Town]:
    """An empty database, an emptied Valkey, the model server without faults, and no process yet."""
    async with Town.open(fresh_database, model_server, tmp_path) as opened:
        yield opened

"""Empty servers on loopback, migrated and in a folder of their own, for a benchmark to fill; gone at its end."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from infra.local.servers import Servers
from infra.local.stack import LocalStack
from infra.migrate import migrate


@asynccontextmanager
async def empty_servers() -> AsyncIterator[tuple[Servers, Path]]:
    """PostgreSQL and Valkey, and the folder that they are in."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        async with LocalStack.start(folder, what="a benchmark", wipe_at_end=True) as stack:
            await migrate(stack.servers.database_owner_url, serving_url=stack.servers.database_url)
            yield stack.servers, folder

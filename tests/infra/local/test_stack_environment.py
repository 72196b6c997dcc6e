from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.environment import child_environment, hostile_names
from infra.local.servers import Servers
from infra.local.stack import LocalStack

CHILD = """
import asyncio, os, asyncpg
from redis.asyncio import Redis

async def main() -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    print(await connection.fetchval("SELECT current_user || '@' || current_database()"))
    await connection.close()
    async with Redis.from_url(os.environ["REDIS_URL"]) as client:
        print(await client.ping())

asyncio.run(main())
"""
SERVERS = Servers(
    "postgresql://app", "postgresql://owner", "redis://v", "postgresql://super", 1, 2, "18", 3, 4, "9", 5
)


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """A port that a child led astray would knock at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def hostile(port: int) -> dict[str, str]:
    """Everything that could send a process elsewhere."""
    address = f"127.0.0.1:{port}"
    return {
        "DATABASE_URL": f"postgresql://u:p@{address}/production",
        "DATABASE_URL_FILE": "/nowhere",
        "database_url": f"postgresql://u:p@{address}/production",
        "REDIS_URL": f"redis://{address}",
        "OPENAI_API_KEY": "sk-real",
        "OPENAI_BASE_URL": f"http://{address}/v1",
        "AZURE_OPENAI_ENDPOINT": f"http://{address}",
        "PENSTOCK_DATABASE_OWNER_URL": f"postgresql://u:p@{address}/production",
        "Penstock_Url": f"http://{address}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": "u",
        "PGPASSWORD": "p",
        "PGSSLMODE": "require",
        "PGSERVICE": "production",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
    }


async def test_nothing_that_is_exported_leads_a_child_astray(root: Path, trap: socket.socket) -> None:
    """With every hostile variable set, a child talks to our servers, and the trap hears nothing."""
    base = {**os.environ, **hostile(trap.getsockname()[1])}
    async with LocalStack.start(root) as stack:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CHILD,
            env=child_environment(stack.servers, base=base),
            stdout=PIPE,
            stderr=PIPE,
        )
        said = await child.communicate()

    assert (b"penstock_app@penstock\nTrue\n", b"") == said
    with pytest.raises(BlockingIOError):
        trap.accept()


def test_only_our_values_are_left() -> None:
    """Every hostile name is gone or holds our value; what else the caller has set stays."""
    environment = child_environment(
        SERVERS, base={**hostile(1), "PATH": "/bin", "LANG": "C"}, extra={"OPENAI_API_KEY": "local"}
    )

    assert {
        "PATH": "/bin",
        "LANG": "C",
        "DATABASE_URL": "postgresql://app",
        "PENSTOCK_DATABASE_OWNER_URL": "postgresql://owner",
        "REDIS_URL": "redis://v",
        "OPENAI_API_KEY": "local",
        "NO_PROXY": "127.0.0.1,localhost,::1",
        "no_proxy": "127.0.0.1,localhost,::1",
    } == environment
    assert sorted(hostile(1)) == sorted(hostile_names(hostile(1)))


def test_a_proxy_is_not_asked_for_our_own_servers() -> None:
    """Hosts that were exempt stay exempt, loopback joins them, and the proxy itself stays for the outside."""
    environment = child_environment(
        SERVERS, base={"HTTPS_PROXY": "http://proxy", "no_proxy": "intranet, ::1"}
    )

    assert "http://proxy" == environment["HTTPS_PROXY"]
    assert "intranet,::1,127.0.0.1,localhost" == environment["NO_PROXY"] == environment["no_proxy"]

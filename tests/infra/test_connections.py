from __future__ import annotations

import asyncio

import asyncpg
import pytest

from infra.database import Database
from schemas.errors import PenstockError
from tests.conftest import Stack

PID = "SELECT pg_backend_pid()"


async def test_a_connection_is_kept_at_hand_and_whoever_waits_gets_it(stack: Stack) -> None:
    """One connection serves ten callers at once, in a pool of one; nobody is forgotten."""
    async with Database.open(stack.servers.database_url, role="penstock_worker", size=1) as database:

        async def ask() -> int:
            async with database.connection() as connection:
                await asyncio.sleep(0)
                return int(await connection.fetchval(PID))

        first = await ask()
        async with asyncio.timeout(30):
            assert {first} == set(await asyncio.gather(*(ask() for _ in range(10))))
        assert first == await ask()


async def test_what_was_left_open_is_rolled_back(stack: Stack) -> None:
    """A bug's open transaction, a cancelled statement and a failed one leave nothing to the next user."""
    async with Database.open(stack.servers.database_url, role="penstock_worker", size=1) as database:
        async with database.connection() as connection:
            await connection.execute("BEGIN")
            await connection.execute("SET LOCAL app.tenants = 'somebody'")
        async with database.connection() as connection:
            assert not connection.is_in_transaction()
            assert (await connection.fetchval("SELECT current_setting('app.tenants', true)")) in {None, ""}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), database.pool.acquire() as connection:
                await connection.fetchval("SELECT pg_sleep(30)")
        with pytest.raises(PenstockError):
            await database.read("tenant", "SELECT $1::text, 1 / 0")
        await database.ping()


async def test_a_connection_that_the_server_ended_is_not_lent_again(stack: Stack) -> None:
    """It was at hand when the server ended it; the next user gets another."""
    superuser = await asyncpg.connect(stack.servers.superuser_url)
    async with Database.open(stack.servers.database_url, role="penstock_worker", size=1) as database:
        async with database.connection() as connection:
            ended = await connection.fetchval(PID)
        await superuser.execute("SELECT pg_terminate_backend($1, 10000)", ended)
        async with asyncio.timeout(30):
            while True:
                try:
                    async with database.connection() as connection:
                        assert ended != await connection.fetchval(PID)
                    break
                except PenstockError:  # the loop had not heard of it yet
                    await asyncio.sleep(0)
    await superuser.close()

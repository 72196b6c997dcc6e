"""Embedding spaces pass through here to whoever tends their vector indexes: `penstock maintain`, and an operator."""

from __future__ import annotations

import structlog

from infra import index_policy
from infra.database import Connection, queries
from infra.index_policy import Action, Policy, Space, decide
from schemas.errors import NotFound

BUILD_TIMEOUT = 24 * 3600.0
CLEAN_BATCH = 5000
"""Vectors that are deleted by one transaction: far below the time limit of a statement, with an index too."""
_log = structlog.get_logger("penstock.spaces")


async def list_spaces(connection: Connection) -> list[Space]:
    """All spaces; as their owner."""
    rows = await connection.fetch(queries("spaces").spaces, index_policy.FEWEST, index_policy.EXACT_NUMBERS)
    return [
        Space(
            space_id=row["space_id"],
            model=row["model"],
            dimensions=row["dimensions"],
            policy=Policy(row["index_policy"]),
            rows=row["rows"],
            present=row["present"],
            valid=row["valid"],
            settled=row["settled"],
        )
        for row in rows
    ]


async def set_policy(connection: Connection, space_id: int, policy: Policy) -> None:
    """Say what is wanted of a space's index; `penstock maintain` does it within a minute.

    Raises:
        NotFound: there is no such space.
    """
    if await connection.fetchval(queries("spaces").set_policy, space_id, policy) is None:
        raise NotFound("there is no such embedding space", field="space")


async def clean(connection: Connection, space_id: int, *, dry_run: bool = False) -> int:
    """Delete, or only count, vectors of collections that are searched in another space by now.

    They are what `collections reembed` left so that going back costs nothing. Each batch is a transaction of its own.

    Args:
        connection: the owner's, outside a transaction.
        space_id: whose vectors.
        dry_run: count only.

    Raises:
        NotFound: there is no such space.
    """
    sql = queries("spaces")
    if not await connection.fetchval(sql.exists, space_id):
        raise NotFound("there is no such embedding space", field="space")
    if dry_run:
        counted: int = await connection.fetchval(sql.leftovers, space_id, 0, False)
        return counted
    total = 0
    while deleted := await connection.fetchval(sql.leftovers, space_id, CLEAN_BATCH, True):
        total += deleted
    _log.info("spaces.cleaned", space=space_id, vectors=total)
    return total


async def build_index(connection: Connection, space_id: int) -> None:
    """Build a space's vector index while it is written and searched; outside a transaction."""
    statement: str = await connection.fetchval(queries("spaces").build_index, space_id)
    await connection.execute(statement, timeout=BUILD_TIMEOUT)
    await _settle(connection, space_id)


async def _settle(connection: Connection, space_id: int) -> None:
    """Have a built index place new vectors at the usual price, and keep what it was built over.

    The lock is brief, and given up when it does not come: searches would wait behind it.
    """
    sql = queries("spaces")
    statement: str = await connection.fetchval(sql.settle_index, space_id)
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute(statement)
        await connection.execute(sql.index_built, space_id)


async def tend(connection: Connection) -> dict[int, Action]:
    """Build and drop indexes as the policy says; nobody who writes or searches is held up.

    Args:
        connection: the owner's, outside a transaction: an index is built CONCURRENTLY.

    Returns:
        What was done, by space.
    """
    sql = queries("spaces")
    done: dict[int, Action] = {}
    for space in await list_spaces(connection):
        action = decide(space)
        if action is Action.KEEP:
            continue
        _log.info("spaces.tending", space=space.space_id, action=action, rows=space.rows)
        if action in {Action.DROP, Action.REBUILD}:
            await connection.execute(
                await connection.fetchval(sql.drop_index, space.space_id), timeout=BUILD_TIMEOUT
            )
        if action in {Action.BUILD, Action.REBUILD}:
            await build_index(connection, space.space_id)
        if action is Action.SETTLE:
            await _settle(connection, space.space_id)
        done[space.space_id] = action
        _log.info("spaces.tended", space=space.space_id, action=action)
    return done

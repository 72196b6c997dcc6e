from __future__ import annotations

import secrets

from infra.database import Database
from tests.cli.commands import Penstock


async def test_an_operator_puts_an_index_off(penstock: Penstock, owner_database: Database) -> None:
    """`spaces list` shows what becomes of an index, `defer` and `auto` change it."""
    async with owner_database.connection() as connection:
        space: int = await connection.fetchval("SELECT space_ensure('test', $1, 3)", secrets.token_hex(4))
    assert "deferred" in penstock.run("spaces", "defer", str(space)).stdout
    [shown] = [one for one in penstock.json("spaces", "list") if one["space_id"] == space]
    assert ("deferred", "keep", 0) == (shown["policy"], shown["next"], shown["rows"])
    penstock.run("spaces", "auto", str(space))
    assert "there is no such embedding space" in penstock.run("spaces", "auto", "99999", expect=1).stderr

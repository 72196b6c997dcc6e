"""A database with a row of each of two tenants in every table passes through here to the tests of who sees what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from infra.database import Connection
from tests.conftest import Stack, on_database

NAME = "test_two_tenants"
MINE, THEIRS = "mine", "theirs"
VALUES: dict[str, str] = {
    "text": "'{tenant}'",
    "uuid": "md5('{tenant}')::uuid",
    "bytea": "'{tenant}'::bytea",
    "jsonb": "'{{}}'",
    "text[]": "ARRAY['{tenant}']",
    "uuid[]": "ARRAY[md5('{tenant}')::uuid]",
    "timestamp with time zone": "now()",
    "date": "now()",
    "boolean": "true",
    "halfvec": "'[1,0]'",
    "tsvector": "'word'",
    "smallint[]": "'{{}}'",
    "integer[]": "'{{}}'",
}
TABLES = """
SELECT c.relname AS name, c.relrowsecurity AS secured, c.relispartition AS partition,
       EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) AS policy
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1
"""
COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS wanted,
       (SELECT substring(pg_get_constraintdef(k.oid) FROM $re$'([a-z_]+)'::text$re$) FROM pg_constraint k
        WHERE k.conrelid = a.attrelid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]
          AND pg_get_constraintdef(k.oid) LIKE '%ARRAY%' LIMIT 1) AS word
FROM pg_attribute a
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class TwoTenants:
    """A database in which every tenant table holds one row of each of two tenants."""

    superuser: Connection
    tables: list[str]

    async def visible(self, role: str, table: str, tenants: str | None) -> list[Any] | None:
        """The tenants whose rows a role sees in a table; None where it may not read it at all."""
        async with self.superuser.transaction():
            if not await self.superuser.fetchval(
                "SELECT has_any_column_privilege($1, $2, 'SELECT')", role, table
            ):
                return None
            await self.superuser.execute(f"SET LOCAL ROLE {role}")
            if tenants is not None:
                await self.superuser.execute("SELECT set_config('app.tenants', $1, true)", tenants)
            sql = f"SELECT tenant_id FROM {table} ORDER BY 1"  # noqa: S608 - names from the catalogue
            return [row["tenant_id"] for row in await self.superuser.fetch(sql)]


async def fill(connection: Connection, table: str, tenant: str) -> None:
    """One row with every wanted column set; foreign keys are off."""
    names, values = [], []
    for column in await connection.fetch(COLUMNS, table):
        if not column["wanted"]:
            continue
        names.append(column["name"])
        value = VALUES.get(column["type"], "1").format(tenant=tenant)
        values.append(f"'{column['word']}'" if column["word"] else value)
    sql = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(values)})"  # noqa: S608 - names from the catalogue
    await connection.execute(sql)


@asynccontextmanager
async def open_two_tenants(stack: Stack) -> AsyncIterator[TwoTenants]:
    """Every tenant table, the vectors of a space included, with a row of each tenant; tests leave it as it is."""
    maintenance = await asyncpg.connect(on_database(stack.servers.superuser_url, "postgres"))
    await maintenance.execute(f"CREATE DATABASE {NAME} TEMPLATE penstock_template OWNER penstock_owner")
    connection = await asyncpg.connect(on_database(stack.servers.superuser_url, NAME))
    owner = await asyncpg.connect(on_database(stack.servers.database_owner_url, NAME))
    await owner.fetchval("SELECT space_ensure('test', 'tiny', 2)")
    await owner.close()
    tables = [row["name"] for row in await connection.fetch(TABLES) if not row["partition"]]
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table in tables:
            for tenant in (MINE, THEIRS):
                await fill(connection, table, tenant)
    yield TwoTenants(connection, tables)
    await connection.close()
    await maintenance.execute(f"DROP DATABASE {NAME} WITH (FORCE)")
    await maintenance.close()

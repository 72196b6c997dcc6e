from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from infra.database import SQL, Connection, queries, set_codecs
from tests.conftest import Stack, on_database
from tests.infra.two_tenants import MINE, NAME, THEIRS, TwoTenants

MARK = "of-theirs"
PREDICATE = re.compile(r"\b(?:\w+\.)?tenant_id = (\$\d+)(?!::)")
PREDICATE_OF_MANY = re.compile(r"\b(?:\w+\.)?tenant_id = ANY \((\$\d+)(?:::text\[\])?\)")
OWNERS = {"maintain", "gateway_tenants", "gateway_keys", "operations"}
"""Files of statements that only the owner runs; nobody who serves may."""
DOOR = ("ledger", "claim")
"""By this one a worker learns whose event it has taken (ledger_claim, a definer function)."""
ROWS_AS_TEXT = {
    ("ledger", "accept"): "r",
    ("ledger", "enter"): "mr",
    ("ledger", "lock"): "mr",
    ("ledger", "write"): "rr",
    ("answer", "begin"): "mrs",
    ("answer", "end"): "mrs",
}
"""Statements whose rows come as one JSON text. Their arguments: rows, me (for whom they say that they act), states."""
MARKED = """
SELECT a.attname AS name FROM pg_attribute a
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  AND format_type(a.atttypid, NULL) = 'jsonb'
"""
STATEMENTS = sorted(
    (path.stem, name)
    for path in (SQL / "queries").glob("*.sql")
    if path.stem not in OWNERS
    for name in queries(path.stem)
)


def without_filter(sql: str) -> str:
    """The statement as somebody would have written it who forgot whose rows they are."""
    sql = PREDICATE.sub(r"(\1::text IS NULL OR true)", sql)
    return PREDICATE_OF_MANY.sub(r"(\1::text[] IS NULL OR true)", sql)


def value_of(kind: str, tenant: str, theirs: UUID) -> Any:
    """An argument of a type: what every column of that type holds in that tenant's rows."""
    if kind.endswith("[]"):
        return [value_of(kind[:-2], tenant, theirs)]
    values: dict[str, Any] = {
        "text": tenant,
        "uuid": theirs,
        "bytea": tenant.encode(),
        "jsonb": {},
        "bool": False,
    }
    if kind in values:
        return values[kind]
    return 1 if kind.startswith(("int", "float", "numeric")) else None


def arguments_of(name: tuple[str, str], kinds: list[str], tenant: str, theirs: UUID) -> list[Any]:
    """What a statement is called with; rows that come as one JSON text name the tenant as arrays would."""
    if name in ROWS_AS_TEXT:
        text = dict.fromkeys(("tenant_id", "source", "id", "type", "queue", "alias"), tenant)
        ids = {
            "event_id": str(theirs),
            "said_id": str(theirs),
            "query_id": str(theirs),
            "keep_as": "00",
            "sha": "00",
        }
        data = {"status": "answered", "question": tenant, "passages": [], "citations": []}
        row = {
            **text,
            **ids,
            "major": 1,
            "token": 1,
            "attempts": 1,
            "data": data,
            "status": "done",
            "attributes": {},
            "collections": [],
        }
        given = {"m": MINE, "r": json.dumps([row]), "s": ["running"]}
        return [given[one] for one in ROWS_AS_TEXT[name]]
    return [value_of(kind, tenant, theirs) for kind in kinds]


async def outcome(
    connection: Connection, name: tuple[str, str], sql: str, tenant: str, theirs: UUID
) -> str | None:
    """What a statement gives to somebody who acts for one tenant and names another's things; None when it fails."""
    attempt = connection.transaction()
    await attempt.start()
    try:
        statement = await connection.prepare(sql)
        kinds = [
            f"{one.name.removesuffix('[]').removeprefix('_')}[]" if one.kind == "array" else one.name
            for one in statement.get_parameters()
        ]
        rows = await statement.fetch(*arguments_of(name, kinds, tenant, theirs))
        return str([tuple(row) for row in rows])
    except (asyncpg.PostgresError, asyncpg.DataError):
        return None
    finally:
        await attempt.rollback()


@pytest.mark.parametrize("role", ["penstock_gateway", "penstock_worker"])
async def test_no_named_query_shows_a_stranger_anything(
    stack: Stack, two_tenants: TwoTenants, role: str
) -> None:
    """Every statement, with its tenant's filter and without, by somebody who knows the other's ids: nothing comes.

    Each row of the other tenant is marked in its JSON columns; the mark must not come back, and rows of the other
    cannot be changed.
    """
    superuser = two_tenants.superuser
    theirs = await superuser.fetchval("SELECT md5($1)::uuid", THEIRS)
    for table in two_tenants.tables:
        for column in await superuser.fetch(MARKED, table):
            sql = f"UPDATE {table} SET {column['name']} = to_jsonb($1::text) WHERE tenant_id = $2"  # noqa: S608 - names from the catalogue
            try:
                await superuser.execute(sql, MARK, THEIRS)
            except asyncpg.PostgresError:
                continue  # a column that holds something else than any JSON
    before = await _rows_of(superuser, two_tenants.tables, THEIRS)
    assert MARK in before
    ran = 0
    connection = await asyncpg.connect(
        on_database(stack.servers.database_url, NAME), server_settings={"role": role}
    )
    await set_codecs(connection)
    try:
        await connection.execute("SELECT set_config('app.tenants', $1, false)", MINE)
        for file, name in STATEMENTS:
            for sql in {queries(file)[name], without_filter(queries(file)[name])}:
                for tenant in (MINE, THEIRS):
                    found = await outcome(connection, (file, name), sql, tenant, theirs)
                    ran += found is not None
                    assert MARK not in (found or "") or (file, name) == DOOR, (file, name)
    finally:
        await connection.close()
    assert before == await _rows_of(superuser, two_tenants.tables, THEIRS)
    assert ran > len(STATEMENTS)


def test_the_filter_can_be_taken_out() -> None:
    """The test above would prove little if it left the filters in."""
    filtered = [one for one in STATEMENTS if PREDICATE.search(queries(one[0])[one[1]])]
    assert len(filtered) > 60
    assert not [one for one in filtered if PREDICATE.search(without_filter(queries(one[0])[one[1]]))]


async def _rows_of(connection: Connection, tables: list[str], tenant: str) -> str:
    found = []
    for table in tables:
        sql = f"SELECT t::text FROM {table} t WHERE tenant_id = $1 ORDER BY 1"  # noqa: S608 - names from the catalogue
        found.append((table, [row[0] for row in await connection.fetch(sql, tenant)]))
    return str(found)

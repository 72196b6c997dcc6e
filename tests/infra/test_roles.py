from uuid import UUID

import asyncpg
import pytest

from infra.database import ROLES, Database
from tests.conftest import Stack
from tests.infra.two_tenants import MINE, TABLES, THEIRS, TwoTenants

WITHOUT_TENANT_IN_KEY: set[str] = set()
"""Keys of tenant tables that may begin with another column; none today, each newcomer needs a reason."""
KEYS = """
SELECT i.indexrelid::regclass::text AS name, a.attname AS first FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
WHERE i.indisunique AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attname = 'tenant_id')
"""
FOREIGN_KEYS = """
SELECT k.conrelid::regclass || '.' || k.conname AS name, a.attname AS first, f.attname AS target FROM pg_constraint k
JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
JOIN pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = k.confkey[1]
WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace
  AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = k.conrelid AND t.attname = 'tenant_id')
  AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = k.confrelid AND t.attname = 'tenant_id')
"""
DEFINERS = """
SELECT p.oid::regprocedure::text AS name, pg_get_userbyid(p.proowner) AS owner, p.proconfig AS config,
       p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0) AS open
FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef ORDER BY 1
"""


async def test_the_serving_roles_own_nothing_and_obey_row_level_security(owner_database: Database) -> None:
    """None of the three is a superuser, bypasses policies, may log in, create roles, or own a thing."""
    async with owner_database.connection() as connection:
        rows = await connection.fetch(
            "SELECT rolname, rolsuper OR rolbypassrls OR rolcanlogin OR rolcreaterole OR rolcreatedb OR rolinherit AS much,"
            " (SELECT count(*) FROM pg_class WHERE relowner = r.oid)"
            " + (SELECT count(*) FROM pg_proc WHERE proowner = r.oid) AS owned"
            " FROM pg_roles r WHERE rolname = ANY ($1::text[])",
            list(ROLES),
        )
    assert {(role, False, 0) for role in ROLES} == {tuple(row.values()) for row in rows}


async def test_the_serving_login_acts_only_by_taking_a_role(stack: Stack) -> None:
    """DATABASE_URL's login inherits nothing: without a role it does not even see that a table exists."""
    connection = await asyncpg.connect(stack.servers.database_url)
    try:
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.fetch("SELECT * FROM events")
    finally:
        await connection.close()


async def test_every_tenant_table_is_under_a_policy(two_tenants: TwoTenants) -> None:
    """RLS is enabled with a policy on each; partitions are reachable through their parent only."""
    rows = await two_tenants.superuser.fetch(TABLES)
    assert [] == [
        row["name"] for row in rows if not row["partition"] and not (row["secured"] and row["policy"])
    ]
    assert len(two_tenants.tables) > 20
    for row in rows:
        for role in ROLES if row["partition"] else ():
            sql = "SELECT has_table_privilege($1, $2, 'SELECT,INSERT,UPDATE,DELETE')"
            assert not await two_tenants.superuser.fetchval(sql, role, row["name"]), (role, row["name"])


async def test_every_key_begins_with_the_tenant(two_tenants: TwoTenants) -> None:
    """A clash or a foreign key must not betray that another tenant has a row."""
    keys = await two_tenants.superuser.fetch(KEYS)
    assert WITHOUT_TENANT_IN_KEY == {row["name"] for row in keys if row["first"] != "tenant_id"}
    foreign = await two_tenants.superuser.fetch(FOREIGN_KEYS)
    wrong = [row["name"] for row in foreign if (row["first"], row["target"]) != ("tenant_id", "tenant_id")]
    assert [] == wrong
    assert len(keys) > 20 < len(foreign)


async def test_definer_functions_are_closed_and_pin_their_path(two_tenants: TwoTenants) -> None:
    """They belong to the owner, pin search_path with pg_temp last, and PUBLIC may not call them."""
    rows = await two_tenants.superuser.fetch(DEFINERS)
    assert len(rows) > 5
    for row in rows:
        paths = [entry for entry in row["config"] or [] if entry.startswith("search_path=")]
        assert ("penstock_owner", False) == (row["owner"], row["open"]), row["name"]
        assert paths == ["search_path=pg_catalog, public, pg_temp"], row["name"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("tenants", [None, "", ",", "nobody"], ids=["unset", "empty", "comma", "nobody"])
async def test_who_names_no_tenant_sees_nothing(
    two_tenants: TwoTenants, role: str, tenants: str | None
) -> None:
    """Unset, empty or strange: every table is empty to every role, and nothing is raised."""
    seen = {table: await two_tenants.visible(role, table, tenants) for table in two_tenants.tables}
    assert {} == {table: rows for table, rows in seen.items() if rows}
    assert any(rows == [] for rows in seen.values()) == (role != "penstock_system")


@pytest.mark.parametrize("role", ROLES)
async def test_a_tenant_sees_its_own_rows_only(two_tenants: TwoTenants, role: str) -> None:
    """In each table that a role may read, the transaction's tenant shows and the other does not."""
    for table in two_tenants.tables:
        assert await two_tenants.visible(role, table, MINE) in (None, [MINE]), table
        assert await two_tenants.visible(role, table, f"{MINE},{THEIRS}") in (None, [MINE, THEIRS]), table


@pytest.mark.parametrize("role", ["penstock_gateway", "penstock_worker"])
async def test_nobody_can_write_a_row_for_another_tenant(two_tenants: TwoTenants, role: str) -> None:
    """An UPDATE of somebody else's rows finds none, and a row cannot be moved to another tenant."""
    connection = two_tenants.superuser
    attempt = connection.transaction()
    await attempt.start()
    await connection.execute(f"SET LOCAL ROLE {role}")
    await connection.execute("SELECT set_config('app.tenants', $1, true)", MINE)
    updated = await connection.fetch("UPDATE events SET status = 'running' RETURNING tenant_id")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await connection.execute(
            "INSERT INTO event_keys (tenant_id, source, id, event_id, data_sha256) VALUES ($1, 's', 'i', $2, '')",
            THEIRS,
            UUID(int=1),
        )
    await attempt.rollback()
    assert [MINE] == [row["tenant_id"] for row in updated]

from __future__ import annotations

from infra.bus import Bus
from infra.database import Database
from schemas.envelope import parse_event
from tests.cli.commands import Penstock


async def test_an_operator_erases_what_is_named(
    penstock: Penstock,
    gateway_database: Database,
    owner_database: Database,
    tenant: str,
    redis_client: object,
) -> None:
    """A dry run counts and changes nothing; then it is done; a whole tenant wants a yes."""
    bus = Bus(gateway_database, redis_client)  # type: ignore[arg-type]
    data = {"collection": "c", "document_id": "d", "content": "heron"}
    raw = {"specversion": "1.0", "id": "1", "source": "s", "type": "document.added", "data": data}
    await bus.publish(tenant, [parse_event({**raw, "subjectref": "person-7"})])

    async def kept() -> int:
        async with owner_database.connection() as connection:
            found: int = await connection.fetchval(
                "SELECT count(*) FROM events WHERE tenant_id = $1 AND data <> '{}'", tenant
            )
            return found

    command = ("erase", "subject", "person-7", "--tenant", tenant)
    dry = penstock.json(*command, "--dry-run")
    assert (1, True, 1) == (dry["counts"]["events"], dry["dry_run"], await kept())
    assert "events" in penstock.run(*command).stdout
    assert 0 == await kept()
    penstock.run("erase", "tenant", tenant, expect=1)
    assert 0 == penstock.json("erase", "tenant", tenant, "--yes")["counts"]["events"]
    async with owner_database.connection() as connection:
        assert await connection.fetchval("SELECT suspended_at FROM tenants WHERE tenant_id = $1", tenant)

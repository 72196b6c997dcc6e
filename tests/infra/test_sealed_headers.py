from __future__ import annotations

import pytest

from infra.database import Database, queries
from infra.endpoints import Endpoint, create_endpoint
from infra.reseal import reseal_endpoints
from infra.sealed_headers import open_headers, seal_headers
from infra.secretbox import SecretBox
from infra.signing_secrets import new_secret, open_secrets
from schemas.errors import Misconfigured, Permanent

OLD, NEW = SecretBox.new_key(), SecretBox.new_key()
HEADERS = {"Authorization": "Bearer s3cret", "X-Team": "käse"}
ROW = {"tenant": "acme", "endpoint": "e1"}


def test_names_are_shown_and_values_sealed() -> None:
    """Names stand in the clear, values open for their own endpoint and name only, and old plain values pass."""
    box = SecretBox.from_keys(OLD)
    kept = seal_headers(box, HEADERS, **ROW)
    assert list(HEADERS) == list(kept)
    assert "s3cret" not in str(kept)
    assert HEADERS == open_headers(box, kept, **ROW)
    assert {"X-Plain": "1"} == open_headers(box, {"X-Plain": "1"}, **ROW)
    for moved, row in (
        ({"X-Other": kept["Authorization"]}, ROW),
        (kept, {**ROW, "endpoint": "e2"}),
        (kept, {**ROW, "tenant": "other"}),
    ):
        with pytest.raises(Permanent):
            open_headers(box, moved, **row)
    with pytest.raises(Misconfigured):
        open_headers(SecretBox.from_keys(NEW), kept, **ROW)


async def test_maintenance_seals_again(owner_database: Database, tenant: str) -> None:
    """What an earlier key sealed, or an earlier version left in the clear, opens with the new key alone after a round."""
    secret, lost = new_secret(), SecretBox.from_keys(SecretBox.new_key())
    async with owner_database.connection() as connection:
        undone = connection.transaction()
        await undone.start()  # it looks at all tenants: other tests' endpoints keep their keys
        try:
            one = await create_endpoint(
                connection,
                SecretBox.from_keys(OLD),
                tenant,
                Endpoint("https://a.example", headers=HEADERS),
                secret,
            )
            plain = await create_endpoint(
                connection, SecretBox.from_keys(OLD), tenant, Endpoint("https://b.example")
            )
            await connection.execute(
                "UPDATE webhook_endpoints SET headers = $2 WHERE endpoint_id = $1", plain["id"], HEADERS
            )
            unknown = await create_endpoint(connection, lost, tenant, Endpoint("https://c.example"))
            assert await connection.fetchval(queries("maintain").headers_in_the_clear)
            await reseal_endpoints(connection, SecretBox.from_keys(f"{NEW},{OLD}"))
            rows = {
                str(row["endpoint_id"]): row
                for row in await connection.fetch(
                    "SELECT * FROM webhook_endpoints WHERE tenant_id = $1", tenant
                )
            }
        finally:
            await undone.rollback()
    box = SecretBox.from_keys(NEW)
    for made in (one, plain):
        row, at = rows[made["id"]], {"tenant": tenant, "endpoint": made["id"]}
        assert HEADERS == open_headers(box, row["headers"], **at)
        assert 1 == len(open_secrets(box, row["secrets"], **at, now=row["created_at"]))
        assert [made["secrets"][0]["id"]] == [entry["id"] for entry in row["secrets"]]
    assert "s3cret" not in str([dict(row) for row in rows.values()])
    assert 1 == len(
        open_secrets(
            lost, rows[unknown["id"]]["secrets"], tenant=tenant, endpoint=unknown["id"], now=one["created_at"]
        )
    )

"""Endpoints as the gateway would register them, and out events as a wing would say them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from infra import outbox
from infra.database import Database
from infra.outbox import Said
from infra.sealed_headers import seal_headers
from infra.secretbox import SecretBox
from infra.settings import Settings
from infra.signing_secrets import SealedSecret, new_secret, seal_secret
from schemas.work import Publication
from tests.drive import Drive


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registered endpoint and the secret that its owner was shown."""

    id: UUID
    secret: str


Register = Callable[..., Awaitable[Endpoint]]
Say = Callable[..., Awaitable[None]]


@pytest.fixture
async def register(tenant: str, gateway_database: Database, settings: Settings) -> Register:
    """Registers endpoints of the test's tenant."""
    box = SecretBox.from_keys(settings.need("PENSTOCK_SECRET_KEYS"))

    async def make(
        url: str,
        *,
        types: tuple[str, ...] = ("*",),
        headers: dict[str, str] | None = None,
        timeout: float = 5.0,
        sealed: list[SealedSecret] | None = None,
        callback_prefix: bool = False,
        secret: str | None = None,
        rate_limit: float | None = None,
    ) -> Endpoint:
        endpoint, secret = uuid4(), secret or new_secret()
        entries = (
            sealed
            if sealed is not None
            else [seal_secret(box, secret, tenant=tenant, endpoint=str(endpoint))]
        )
        async with gateway_database.transaction(tenant) as connection:
            await connection.execute(
                "INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, types, headers, timeout_seconds, secrets,"
                " callback_prefix, rate_limit) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                tenant,
                endpoint,
                url,
                list(types),
                seal_headers(box, headers or {}, tenant=tenant, endpoint=str(endpoint)),
                timeout,
                entries,
                callback_prefix,
                rate_limit,
            )
        return Endpoint(endpoint, secret)

    return make


@pytest.fixture
async def say(tenant: str, worker_database: Database, drive: Drive) -> Say:
    """Says an out event of the test's tenant, in a transaction of its own."""

    async def speak(kind: str = "document.purged", **data: Any) -> None:
        document = data.pop("document_id", "d1")
        callback = data.pop("callback_url", None)
        content = {"collection": "c", "document_id": document, "sequence": 1, **data}
        said = Said(tenant, Publication(kind, content, subject=document, callback_url=callback))
        async with worker_database.transaction(tenant) as connection:
            pushables = await outbox.write(connection, [said])
        await drive.resources.bus.push(pushables)

    return speak

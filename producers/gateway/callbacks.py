"""A question's callback URL passes here on its way in: it must lie under an address that its owner has registered."""

from __future__ import annotations

from collections.abc import Sequence

from infra.database import Connection, queries
from infra.egress.url import lies_under
from schemas.envelope import Event
from schemas.errors import BlockedTarget, PenstockError


async def callback_prefixes(connection: Connection, tenant_id: str) -> list[str]:
    """The prefixes under which a tenant's questions may be called back."""
    rows = await connection.fetch(queries("gateway_queries").callback_prefixes, tenant_id)
    return [row["url"] for row in rows]


def callback_of(event: Event) -> str | None:
    """The callback URL of a question, if it has one."""
    url = event.data.get("callback_url") if event.type == "query.received" else None
    return url if isinstance(url, str) else None


def refusal(url: str, prefixes: Sequence[str]) -> PenstockError | None:
    """Why an answer may not be sent there; None when it may."""
    try:
        if any(lies_under(url, prefix) for prefix in prefixes):
            return None
    except PenstockError as error:
        return error
    return BlockedTarget(
        "callback_url lies under no registered prefix",
        field="data.callback_url",
        fix="register one with `penstock webhooks add --callback-prefix URL`",
    )

"""What was answered to a request is kept here under the key that its sender gave it, and repeated when it comes again.

The key is remembered in ``event_keys``, beside those of events; the answer in ``request_replies``, sealed where the
process has a key for secrets, because an answer may show one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from infra.database import Connection, Database, queries
from infra.secretbox import SecretBox
from schemas.errors import Unavailable
from schemas.ids import uuid7

SOURCE = "penstock:gateway/requests"
"""The source under which requests' keys stand in ``event_keys``."""
CLAIM = 60.0
"""Seconds after which a request that nobody ended may be done again."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do a request; end it with `keep` or `release`."""

    event_id: UUID


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody is doing the same request now."""


@dataclass(frozen=True, slots=True)
class Reused:
    """The key stands for another request."""


class Replies:
    """Remembers answers; one of the gateway's resources."""

    def __init__(self, database: Database, box: SecretBox | None) -> None:
        """Use a database that acts as the gateway, and what seals secrets, if anything does."""
        self._database = database
        self._box = box

    async def claim(self, tenant: str, key: str, sha256: bytes) -> Reply | Claim | Busy | Reused:
        """Ask for the right to do a request.

        Args:
            tenant: whose request it is.
            key: what its sender calls it.
            sha256: of everything that makes it this request and no other.
        """
        sql = queries("gateway_replies")
        async with self._database.transaction(tenant) as connection:
            event_id = uuid7()
            if await connection.fetchval(sql.enter_key, tenant, SOURCE, key, event_id, sha256) is not None:
                await connection.execute(sql.begin, tenant, event_id, CLAIM)
                return Claim(event_id)
            row = await connection.fetchrow(sql.kept, tenant, SOURCE, key)
            if row is None or row["data_sha256"] != sha256:
                return Reused()
            if row["status"] is None:
                return await _take_over(connection, tenant, row["event_id"], busy=row["busy"])
        body = row["body"]
        if row["sealed"]:
            if self._box is None:
                raise Unavailable("the answer was kept sealed, and the gateway has no PENSTOCK_SECRET_KEYS")
            body = self._box.open(body, tenant, str(row["event_id"]))
        return Reply(row["status"], row["headers"], body)

    async def keep(self, tenant: str, claim: Claim, reply: Reply) -> None:
        """Remember what was answered."""
        body = reply.body
        if self._box is not None:
            body = self._box.seal(body, tenant, str(claim.event_id))
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                queries("gateway_replies").keep,
                tenant,
                claim.event_id,
                reply.status,
                dict(reply.headers),
                body,
                self._box is not None,
            )

    async def release(self, tenant: str, claim: Claim) -> None:
        """Let the same request be tried again."""
        async with self._database.transaction(tenant) as connection:
            await connection.execute(queries("gateway_replies").release, tenant, claim.event_id)


async def _take_over(connection: Connection, tenant: str, event_id: UUID, *, busy: bool) -> Claim | Busy:
    if busy:
        return Busy()
    await connection.execute(queries("gateway_replies").take_over, tenant, event_id, CLAIM)
    return Claim(event_id)

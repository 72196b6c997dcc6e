"""A bearer key becomes a `Caller` here: whose tenant, which scopes, which rate. The tenant comes from the key alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog
from starlette.requests import Request

from infra.database import Database
from infra.keys import PREFIX, FoundKey, Scope, find_key, key_sha256, remember_used
from infra.limits import REQUESTS
from producers.gateway.rates import TooManyRequests
from schemas.errors import Forbidden, PenstockError, Unauthorized

if TYPE_CHECKING:
    from producers.gateway.resources import Gateway

FRESH = 0.9
"""Seconds for which a key is believed: a revocation works within a second."""
MAX_CACHED = 10_000
USED_EVERY = 30.0
_log = structlog.get_logger("penstock.gateway")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    tenant_id: str
    key_id: str
    scopes: frozenset[str]
    limits: Mapping[str, Any] = field(default_factory=dict)

    def may(self, *scopes: Scope) -> bool:
        """Whether one of these scopes is the key's; `admin` means all of its own tenant."""
        return Scope.ADMIN in self.scopes or not self.scopes.isdisjoint(scopes)


class KeyRing:
    """Keys that were used within the last second, by the hash of their secret."""

    def __init__(self, database: Database) -> None:
        """Use a database that acts as the gateway."""
        self._database = database
        self._known: dict[bytes, tuple[float, FoundKey]] = {}
        self._asking: dict[bytes, asyncio.Task[FoundKey | None]] = {}
        self._used: set[str] = set()

    async def find(self, secret: str) -> FoundKey | None:
        """Who is behind a secret; concurrent calls with the same one share a look-up."""
        sha = key_sha256(secret)
        now = time.monotonic()
        held = self._known.get(sha)
        if held is not None and now - held[0] < FRESH:
            return held[1]
        task = self._asking.get(sha)
        if task is None:
            task = asyncio.create_task(self._ask(sha, secret, now))
            self._asking[sha] = task
            task.add_done_callback(lambda _: self._asking.pop(sha, None))
        # One caller that goes away must not take the others' answer with it.
        return await asyncio.shield(task)

    async def _ask(self, sha: bytes, secret: str, asked_at: float) -> FoundKey | None:
        found = await find_key(self._database, secret)
        self._known.pop(sha, None)
        if found is not None:
            if len(self._known) >= MAX_CACHED:
                self._known.pop(next(iter(self._known)))
            self._known[sha] = (asked_at, found)
            self._used.add(found.key_id)
        return found

    async def note_used(self) -> None:
        """Write when keys were last used, every half minute, until cancelled."""
        while True:
            await asyncio.sleep(USED_EVERY)
            await self.flush_used()

    async def flush_used(self) -> None:
        """Write it now; an outage costs a timestamp and nothing else."""
        used, self._used = sorted(self._used), set()
        if not used:
            return
        try:
            await remember_used(self._database, used)
        except PenstockError as error:
            self._used.update(used)
            _log.warning("gateway.key_times_kept_back", keys=len(used), reason=error.message)


class Allow:
    """A route's demand: the caller's key must have one of these scopes."""

    def __init__(self, *scopes: Scope) -> None:
        """Any of the scopes will do; without any, any valid key will."""
        self.scopes = scopes or tuple(Scope)

    async def __call__(self, request: Request) -> Caller:
        """Find the caller.

        Raises:
            Unauthorized: no key, or none that is valid now.
            Forbidden: the key lacks the scope, or the tenant is suspended.
        """
        caller = await authenticate(request.app.state.gateway, request)
        structlog.contextvars.bind_contextvars(key_id=caller.key_id)
        if not caller.may(*self.scopes):
            wanted = " or ".join(self.scopes)
            raise Forbidden(f"this needs a key with the scope {wanted}", field="scope")
        return caller


async def authenticate(gateway: Gateway, request: Request) -> Caller:
    """The caller behind a request's Authorization header; counts the request, once.

    Raises:
        Unauthorized: it names no valid key.
        Forbidden: the tenant is suspended.
        TooManyRequests: the key's rate is used up.
    """
    known: Caller | None = request.scope.get("penstock.caller")
    if known is not None:
        return known
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthorized(
            "an API key is required", field="Authorization", fix="send Authorization: Bearer psk_…"
        )
    found = await gateway.keys.find(secret) if secret.startswith(PREFIX) else None
    if found is None or (found.expires_at is not None and found.expires_at <= datetime.now(UTC)):
        raise Unauthorized("the API key is unknown, expired or revoked", field="Authorization")
    if found.suspended:
        raise Forbidden("the tenant is suspended", fix="ask the operator")
    _count(gateway, request, found)
    caller = Caller(found.tenant_id, found.key_id, found.scopes, found.limits)
    request.scope["penstock.caller"] = caller
    return caller


def _count(gateway: Gateway, request: Request, found: FoundKey) -> None:
    quota = found.rate_per_minute or found.limits.get(REQUESTS) or gateway.settings.rate_limit
    standing = gateway.rates.count(found.key_id, int(quota))
    request.scope["penstock.headers"] = standing.headers()
    if standing.left < 0:
        raise TooManyRequests(standing.quota, standing.seconds)

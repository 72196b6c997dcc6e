"""A bearer key becomes a `Caller` here: whose tenant, which scopes, which rate. The tenant comes from the key alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog
from starlette.requests import Request

from infra.keys import PREFIX, FoundKey, Scope
from infra.limits import REQUESTS
from producers.gateway.rates import TooManyRequests
from producers.gateway.resources import Gateway, gateway_of
from schemas.errors import Forbidden, Unauthorized


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
        caller = await authenticate(gateway_of(request), request)
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

"""A request that carries an `Idempotency-Key` passes through here: done once, and answered alike when it comes again.

Follows draft-ietf-httpapi-idempotency-key-header-07: a malformed key is 400, a key that stands for another request
422, one whose first request is still under way 409. What makes an event needs no memory of its own: there the key
becomes the event's id (`publishing.enter`), and the ledger answers. For everything else `Remembered` keeps the answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from infra.replies import Busy, Claim, Reply, Reused
from producers.gateway.access import authenticate
from producers.gateway.body import MAX_BATCH, read_bytes
from producers.gateway.problems import problem_of, request_id_of
from producers.gateway.resources import Gateway, gateway_of
from schemas.errors import BadInput, Conflict, PenstockError

HEADER = "Idempotency-Key"
KEPT_HEADERS = ("location", "content-type", "content-location", "preference-applied")
MAX_KEY = 255
BARE = r"[\x21\x23-\x5b\x5d-\x7e]{1,255}"
QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}"'
_BARE, _QUOTED = re.compile(BARE), re.compile(QUOTED)


class KeyReused(BadInput):
    """The idempotency key was used for another request."""

    code = "idempotency_key_reused"
    status = 422

    def __init__(self) -> None:
        """Name the header."""
        super().__init__(field=HEADER, fix="give every request a key of its own")


class InProgress(Conflict):
    """A request with this idempotency key is still under way."""

    code = "request_in_progress"
    retry_after = 1.0


def idempotency_key(request: Request) -> str | None:
    """The key that a caller gave to its request; a structured-field string, or the same without quotes.

    Raises:
        BadInput: it is empty, too long, sent twice, or holds what a header may not.
    """
    values = request.headers.getlist(HEADER)
    if not values:
        return None
    if len(values) == 1:
        text = values[0].strip()
        if _QUOTED.fullmatch(text):
            return re.sub(r"\\(.)", r"\1", text[1:-1])
        if _BARE.fullmatch(text):
            return text
    raise BadInput(
        f"{HEADER} is one string of 1 to {MAX_KEY} visible ASCII characters",
        field=HEADER,
        fix="send a UUID, the same whenever the same request is sent again",
    )


class Remembered(APIRoute):
    """A route whose answers are remembered under their requests' keys."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler, asked only when the request is a new one."""
        handle = super().get_route_handler()
        if not (self.methods or set()) & {"POST", "PATCH"}:
            return handle

        async def once(request: Request) -> Response:
            key = idempotency_key(request)
            return await handle(request) if key is None else await _once(request, key, handle)

        return once


async def _once(
    request: Request, key: str, handle: Callable[[Request], Coroutine[Any, Any, Response]]
) -> Response:
    gateway = gateway_of(request)
    caller = await authenticate(gateway, request)
    # Read here, within the limit of the largest body, and kept: the route reads the same bytes again.
    request._body = await read_bytes(request, MAX_BATCH)  # noqa: SLF001 - where Starlette keeps a body that was read
    found = await gateway.replies.claim(caller.tenant_id, key, _fingerprint(request, request._body))  # noqa: SLF001
    match found:
        case Reply():
            return Response(found.body, found.status, {**found.headers, "idempotent-replayed": "true"})
        case Busy():
            raise InProgress
        case Reused():
            raise KeyReused
        case Claim():
            return await _do(request, gateway, caller.tenant_id, found, handle)


async def _do(
    request: Request,
    gateway: Gateway,
    tenant: str,
    claim: Claim,
    handle: Callable[[Request], Coroutine[Any, Any, Response]],
) -> Response:
    kept = False
    try:
        try:
            response = await handle(request)
        except PenstockError as error:
            response = problem_of(error, request_id_of(request))
        if is_final(response.status_code):
            await gateway.replies.keep(tenant, claim, _reply(response))
            kept = True
    finally:
        if not kept:
            await gateway.replies.release(tenant, claim)
    return response


def is_final(status: int) -> bool:
    """Whether the same request would be answered alike later: not what depends on the key, the rate or an outage."""
    return status < 500 and status not in {401, 403, 429}


def _reply(response: Response) -> Reply:
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    return Reply(response.status_code, headers, bytes(response.body))


def _fingerprint(request: Request, body: bytes) -> bytes:
    parts = (request.method.encode(), request.url.path.encode(), request.url.query.encode(), body)
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).digest()

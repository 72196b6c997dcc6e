"""Events pass through here from a route to the bus, once it is clear that this caller may publish them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from starlette.requests import Request

from infra.keys import Scope
from infra.ledger import Accepted
from producers.gateway.access import Caller
from producers.gateway.callbacks import callback_of, callback_prefixes, refusal
from producers.gateway.idempotency import KeyReused, idempotency_key
from producers.gateway.modes import Offer, Refused
from producers.gateway.resources import Gateway, gateway_of
from schemas.envelope import SUPPLIER, SUPPLYING, TRACEPARENT, Event, parse_event
from schemas.errors import Forbidden, IdReused, PenstockError, Retryable
from schemas.ids import EventId

SCOPES = {
    "document.added": (Scope.PUBLISH,),
    "document.deleted": (Scope.PUBLISH,),
    "query.received": (Scope.PUBLISH, Scope.QUERY),
    "feedback.received": (Scope.PUBLISH, Scope.FEEDBACK),
    "example.recorded": (Scope.PUBLISH, Scope.TRAIN),
    "training.batch_ready": (Scope.PUBLISH, Scope.TRAIN),
}
"""Which scopes may publish an event of a type."""


def make_event(
    kind: str,
    source: str,
    data: dict[str, Any],
    *,
    name: str | None = None,
    subject: str | None = None,
    sequence: int | None = None,
) -> Event:
    """An event that a request of another shape stands for, as strict as one that came as a CloudEvent.

    Raises:
        BadInput: names the field.
    """
    raw: dict[str, Any] = {
        "specversion": "1.0",
        "id": name or str(uuid4()),
        "source": source,
        "type": kind,
        "data": data,
    }
    if subject is not None:
        raw["subject"] = subject
    if sequence is not None:
        raw["sequence"] = sequence
    return parse_event(raw)


async def enter(request: Request, caller: Caller, event: Event) -> EventId:
    """Put one event into the ledger; its id is the request's Idempotency-Key where there is one.

    Raises:
        Forbidden: the key lacks the scope.
        BlockedTarget: a question's callback URL lies under no registered prefix.
        KeyReused: the key stands for another request already.
        LimitReached: the tenant has as much as it may have.
        Unavailable: the database could not commit; nothing was promised.
    """
    key = idempotency_key(request)
    if key is not None:
        event = replace(event, id=key)
    [result] = await publish_offer(request, caller, Offer([event], batch=False))
    if isinstance(result.error, IdReused):
        raise KeyReused
    if result.error is not None:
        raise result.error
    assert result.event_id is not None
    return result.event_id


async def publish_offer(request: Request, caller: Caller, offer: Offer) -> list[Accepted]:
    """Hand the good items to the bus, as one group, and say of each item what became of it.

    Raises:
        Overloaded: too much is waiting already; nothing of this request was taken.
        Unavailable: the database could not commit; nothing was promised.
    """
    gateway = gateway_of(request)
    trace = trace_of(request)
    prefixes = await _prefixes(gateway, caller, offer)
    forbidden = {
        kind: _forbidden(caller, kind) for kind in {one.type for one in offer.items if isinstance(one, Event)}
    }
    results: list[Accepted | None] = [None] * len(offer.items)
    good: list[tuple[int, Event]] = []
    for index, item in enumerate(offer.items):
        if isinstance(item, Refused):
            error: PenstockError | None = item.error
        else:
            error = forbidden[item.type] or _uncallable(item, prefixes)
        if error is None and isinstance(item, Event):
            good.append((index, _signed(caller, item, trace)))
        else:
            results[index] = Accepted(index, None, item.source, item.id, "rejected", error)
    await _within_limits(gateway, caller, good, results)
    try:
        accepted = await gateway.pressure.publish(gateway.bus, caller.tenant_id, [event for _, event in good])
    except Retryable:
        gateway.limits.forget(caller.tenant_id)
        raise
    for (index, _), one in zip(good, accepted, strict=True):
        # The bus has numbered what it got; only beside refused items are their numbers others.
        results[index] = (
            one
            if one.index == index
            else Accepted(index, one.event_id, one.source, one.id, one.status, one.error)
        )
    ordered = [one for one in results if one is not None]
    gateway.metrics.events(
        Counter(
            (item.type if isinstance(item, Event) else "none", result.status)
            for item, result in zip(offer.items, ordered, strict=True)
        )
    )
    return ordered


def trace_of(request: Request) -> str | None:
    """The W3C trace context of a request, for events that carry none of their own; a malformed one is ignored."""
    value = request.headers.get("traceparent", "")
    return value if TRACEPARENT.match(value) else None


async def _within_limits(
    gateway: Gateway, caller: Caller, good: list[tuple[int, Event]], results: list[Accepted | None]
) -> None:
    """Move what would pass a limit of the tenant from the good items to the results."""
    if not caller.limits:
        return
    refused = await gateway.limits.refuse(caller.tenant_id, caller.limits, [event for _, event in good])
    for place, error in refused.items():
        index, event = good[place]
        results[index] = Accepted(index, None, event.source, event.id, "rejected", error)
    good[:] = [one for place, one in enumerate(good) if place not in refused]


def _signed(caller: Caller, event: Event, trace: str | None) -> Event:
    """The event with its request's trace, and with the key that it came by where a dataset bounds what one may supply."""
    if trace is not None and event.traceparent is None:
        event = replace(event, traceparent=trace)
    if event.type in SUPPLYING:
        # Never the caller's word. The event was read for this request, so its extensions are nobody else's.
        event.extensions[SUPPLIER] = caller.key_id
    return event


async def _prefixes(gateway: Gateway, caller: Caller, offer: Offer) -> list[str]:
    """Where this tenant may be called back; looked up only when a question asks for it."""
    if not any(isinstance(item, Event) and callback_of(item) for item in offer.items):
        return []
    async with gateway.database.transaction(caller.tenant_id, readonly=True) as connection:
        return await callback_prefixes(connection, caller.tenant_id)


def _forbidden(caller: Caller, kind: str) -> Forbidden | None:
    """Why this caller may not publish events of a type; None when it may."""
    wanted = SCOPES[kind]
    if caller.may(*wanted):
        return None
    return Forbidden(f"{kind} needs a key with the scope {' or '.join(wanted)}", field="scope")


def _uncallable(event: Event, prefixes: Sequence[str]) -> PenstockError | None:
    """Why a question's answer may not be sent where it asks for; None when it may, or asks for nothing."""
    url = callback_of(event)
    return None if url is None else refusal(url, prefixes)

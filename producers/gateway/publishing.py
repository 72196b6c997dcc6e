"""Events that the gateway makes of other requests pass through here to the bus; the event's id goes back to the caller."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from starlette.requests import Request

from producers.gateway.access import Caller
from producers.gateway.resources import gateway_of
from schemas.envelope import Event, parse_event
from schemas.ids import EventId


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
    """Put one event into the ledger.

    Raises:
        IdReused: the name stands for other data already.
        Unavailable: the database could not commit; nothing was promised.
    """
    gateway = gateway_of(request)
    [result] = await gateway.bus.publish(caller.tenant_id, [event])
    gateway.metrics.event(event.type, result.status)
    if result.error is not None:
        raise result.error
    assert result.event_id is not None
    return result.event_id

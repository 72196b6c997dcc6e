"""An event as a worker holds it (`Work`), and the event that its handler says next (`Publication`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from schemas.ids import EventId, TenantId


class Work(NamedTuple):
    """One event under a lease, as the ledger gave it: a named tuple, because a worker makes one per job.

    Attributes:
        event_id: the ledger's id, also the arq job's id.
        tenant_id: whose event it is, as the ledger says.
        source: the caller's source; with ``id`` the caller's name for the event.
        data: the payload as it was accepted; read it with `schemas.registry.read_data`.
        sequence: the caller's version number of the subject, or None.
        accept_no: the ledger's own rising number; the sequence where the caller gave none.
        attributes: correlationid, traceparent and further CloudEvents attributes.
        expires_at: after this nobody waits for the result.
        attempt: 1 for the first charged attempt.
        losses: how many leases ran out because a worker died.
        token: the fencing token under which the effect must be committed.
    """

    event_id: EventId
    tenant_id: TenantId
    source: str
    id: str
    type: str
    major: int
    subject: str | None
    data: Mapping[str, Any]
    sequence: int | None
    accept_no: int
    attributes: Mapping[str, Any]
    expires_at: datetime | None
    attempt: int
    losses: int
    accepted_at: datetime
    token: int


@dataclass(frozen=True, slots=True)
class Publication:
    """An event that a handler's effect says next; it is written in the effect's transaction.

    Out events are written done and delivered to the endpoints that match; events for a queue are written accepted
    and pushed after the commit.

    Attributes:
        type: a type of `schemas.registry.EVENT_TYPES`.
        data: the payload, JSON.
        subject: what it is about, such as a document id; ``sequence`` in webhooks rises per subject.
        delay: seconds until a queued event may run.
        callback_url: a further receiver of this event only, under a registered prefix.
        correlationid: the thread that the event belongs to; the cause's unless given.
    """

    type: str
    data: Mapping[str, Any]
    subject: str | None = None
    delay: float = 0.0
    callback_url: str | None = None
    correlationid: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Pushable(NamedTuple):
    """What Redis must know of an event: its id, its type, its queue, the seconds until it is due, and whose turn it takes.

    Work of a tenant waits in lanes, which are served in turn; without a tenant it waits in the order of time.
    """

    event_id: UUID
    type: str
    queue: str
    delay: float = 0.0
    tenant: str = ""

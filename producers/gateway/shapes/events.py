"""Events as the API shows them: what became of a publication, and an event with its story."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from producers.gateway.shapes.base import ErrorView, View


class PublishResult(View):
    """What became of one event."""

    index: int
    event_id: UUID | None
    source: str
    id: str
    status: Literal["accepted", "duplicate", "rejected"]
    error: ErrorView | None


class PublishResults(View):
    """What became of each event, in the order in which they were sent."""

    results: list[PublishResult]


class EventAccepted(View):
    """The ledger has the event."""

    event_id: UUID


class EventSummary(View):
    """An event in a listing."""

    event_id: UUID
    source: str
    id: str
    type: str
    subject: str | None
    status: str
    attempts: int
    error: ErrorView | None
    accepted_at: datetime
    finished_at: datetime | None


class StoryLine(View):
    """One thing that happened to an event."""

    at: str
    what: str


class EventView(EventSummary):
    """An event with its whole story; never its data."""

    caused: list[UUID]
    story: list[StoryLine]


class EventPage(View):
    """A page of events, newest first."""

    items: list[EventSummary]
    next_cursor: str | None

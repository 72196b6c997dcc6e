"""Webhook endpoints and deliveries as the API takes and shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BeforeValidator, Field, model_validator

from producers.gateway.shapes.base import View
from schemas.values import Json, Shape, Text


def _moment(value: object) -> object:
    """JSON has no type for a moment: it comes as text (RFC 3339)."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


class WebhookBody(Shape):
    """A new webhook endpoint."""

    url: Annotated[str, Field(max_length=4096)]
    types: Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=1, max_length=64)] = Field(
        default_factory=lambda: ["*"]
    )
    filter: Json = None
    payload: Literal["auto", "full", "thin"] = "auto"
    secret: Annotated[str, Field(max_length=256)] | None = None
    description: Annotated[Text, Field(max_length=1000)] = ""
    headers: Annotated[dict[str, str], Field(max_length=20)] = Field(default_factory=dict)
    timeout_seconds: Annotated[float, Field(ge=1, le=60)] = 15.0
    rate_limit: Annotated[float, Field(ge=0.01, le=10_000)] | None = None
    callback_prefix: bool = False


class WebhookChange(Shape):
    """What is to change of a webhook endpoint; what is left out stays."""

    url: Annotated[str, Field(max_length=4096)] | None = None
    types: (
        Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=1, max_length=64)] | None
    ) = None
    filter: Json = None
    payload: Literal["auto", "full", "thin"] | None = None
    description: Annotated[Text, Field(max_length=1000)] | None = None
    headers: Annotated[dict[str, str], Field(max_length=20)] | None = None
    timeout_seconds: Annotated[float, Field(ge=1, le=60)] | None = None
    rate_limit: Annotated[float, Field(ge=0.01, le=10_000)] | None = None
    callback_prefix: bool | None = None
    status: Literal["active", "disabled"] | None = None

    @model_validator(mode="after")
    def _no_nulls(self) -> WebhookChange:
        for name in self.model_fields_set - {"filter", "rate_limit"}:
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null; leave it out to keep it")
        return self


class RotateBody(Shape):
    """A new secret, made unless given, and how long the one before goes on signing."""

    secret: Annotated[str, Field(max_length=256)] | None = None
    overlap_seconds: Annotated[float, Field(ge=0, le=7 * 24 * 3600)] = 24 * 3600.0


Ended = Literal["dead", "delivered"]


def _dead() -> list[Ended]:
    return ["dead"]


class ReplayBody(Shape):
    """Which messages of a webhook are sent again, how fast, and under which nonce."""

    status: Annotated[list[Ended], Field(min_length=1, max_length=2)] = Field(default_factory=_dead)
    types: Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=1, max_length=64)] = Field(
        default_factory=lambda: ["*"]
    )
    filter: Json = None
    error: Annotated[str, Field(max_length=100)] | None = None
    since: Moment | None = None
    until: Moment | None = None
    missing: bool = False
    per_second: Annotated[float, Field(ge=0.01, le=10_000)] = 50.0
    dry_run: bool = False
    nonce: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    cursor: Annotated[str, Field(max_length=2048)] | None = None


class ReplayView(View):
    """What a replay does; `repeated` says that its nonce was used before and nothing was done now."""

    replay_id: UUID
    nonce: str
    messages: int
    by_type: dict[str, int]
    seconds: float
    dry_run: bool
    repeated: bool
    next_cursor: str | None


class WebhookView(View):
    """A webhook endpoint; its secrets by id only."""

    id: UUID
    url: str
    types: list[str]
    payload: str
    status: str
    status_reason: str | None
    failing_since: datetime | None
    throttled_until: datetime | None
    timeout_seconds: float
    rate_limit: float | None
    description: str


class WebhookCreated(WebhookView):
    """A webhook endpoint with the secret that is shown this once."""

    secret: str


class WebhookPage(View):
    """A page of endpoints, oldest first."""

    items: list[WebhookView]
    next_cursor: str | None


class DeliveryView(View):
    """A message to an endpoint, and how its attempts went."""

    id: UUID
    endpoint_id: UUID
    message_id: str
    event_id: UUID
    type: str
    status: str
    attempts: int
    tried: list[dict[str, Any]]


class DeliveryPage(View):
    """A page of deliveries, newest first."""

    items: list[DeliveryView]
    next_cursor: str | None


class DeliveryAccepted(View):
    """The message will be sent."""

    delivery_id: UUID

"""Every event type passes through here: which model reads it, which queue carries it, which versions exist."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from schemas import inbound, internal, outbound
from schemas.errors import BadInput, NewerThanWorker, UnknownType
from schemas.values import Shape

INGEST = "penstock:ingest"
ANSWER = "penstock:answer"
TRAIN = "penstock:train"
DELIVER = "penstock:deliver"
QUEUES = (INGEST, ANSWER, TRAIN, DELIVER)


class Direction(StrEnum):
    """Who may publish an event: a caller, Penstock for others, Penstock for itself; or nobody, it is a dead letter."""

    IN = "in"
    OUT = "out"
    INTERNAL = "internal"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class EventType:
    """What Penstock knows of an event type.

    Attributes:
        name: the CloudEvents ``type``.
        model: the shape of its ``data``.
        direction: who may publish it.
        queue: the arq queue that carries it; none for events that only go out.
        major: the newest major version that this code knows.
        urgent: whether it is taken before bulk work of the same queue (which keeps a quarter all the same).
    """

    name: str
    model: type[Shape]
    direction: Direction
    queue: str | None = None
    major: int = 1
    urgent: bool = False

    @property
    def dataschema(self) -> str:
        """The CloudEvents ``dataschema`` of the newest version."""
        return f"penstock:{self.name}:{self.major}"


def _table(*types: EventType) -> dict[str, EventType]:
    return {one.name: one for one in types}


EVENT_TYPES = _table(
    EventType("document.added", inbound.DocumentAdded, Direction.IN, INGEST),
    EventType("document.deleted", inbound.DocumentDeleted, Direction.IN, INGEST, urgent=True),
    EventType("query.received", inbound.QueryReceived, Direction.IN, ANSWER),
    EventType("feedback.received", inbound.FeedbackReceived, Direction.IN, TRAIN),
    EventType("example.recorded", inbound.ExampleRecorded, Direction.IN, TRAIN),
    EventType("training.batch_ready", inbound.TrainingBatchReady, Direction.IN, TRAIN, urgent=True),
    EventType("training.advance", internal.TrainingAdvance, Direction.INTERNAL, TRAIN, urgent=True),
    EventType("stream.refused", internal.StreamRefused, Direction.KEPT),
    EventType("delivery.due", internal.DeliveryDue, Direction.INTERNAL, DELIVER),
    EventType("document.indexed", outbound.DocumentIndexed, Direction.OUT),
    EventType("document.superseded", outbound.DocumentSuperseded, Direction.OUT),
    EventType("document.purged", outbound.DocumentPurged, Direction.OUT),
    EventType("document.failed", outbound.DocumentFailed, Direction.OUT),
    EventType("query.answered", outbound.QueryAnswered, Direction.OUT),
    EventType("query.failed", outbound.QueryFailed, Direction.OUT),
    EventType("training.started", outbound.TrainingStarted, Direction.OUT),
    EventType("training.progressed", outbound.TrainingProgressed, Direction.OUT),
    EventType("training.succeeded", outbound.TrainingSucceeded, Direction.OUT),
    EventType("training.failed", outbound.TrainingFailed, Direction.OUT),
    EventType("training.unavailable", outbound.TrainingUnavailable, Direction.OUT),
    EventType("model.evaluated", outbound.ModelEvaluated, Direction.OUT),
    EventType("model.promoted", outbound.ModelPromoted, Direction.OUT),
    EventType("model.rejected", outbound.ModelRejected, Direction.OUT),
    EventType("model.rolled_back", outbound.ModelRolledBack, Direction.OUT),
    EventType("model.ending", outbound.ModelEnding, Direction.OUT),
    EventType("endpoint.disabled", outbound.EndpointDisabled, Direction.OUT),
    EventType("event.dead", outbound.EventDead, Direction.OUT),
)


def types_of(direction: Direction) -> list[EventType]:
    """The event types that go one way, in the order of the table."""
    return [one for one in EVENT_TYPES.values() if one.direction is direction]


def check_data(name: str, major: int, data: Any) -> dict[str, Any]:
    """Hold an event's data against its type, strictly, as the gate does.

    Returns:
        The data as it came: what is stored is what was sent.

    Raises:
        UnknownType: nobody may publish such an event, or the version does not exist.
        BadInput: names the field at fault.
    """
    known = EVENT_TYPES.get(name)
    if known is None or known.direction is not Direction.IN:
        choices = ", ".join(one.name for one in types_of(Direction.IN))
        raise UnknownType(
            f"no event of type {name[:100]!r} can be published", field="type", fix=f"use one of {choices}"
        )
    if not 1 <= major <= known.major:
        raise UnknownType(f"{name} has no version {major}", field="dataschema", fix=f"use {known.dataschema}")
    if not isinstance(data, dict):
        raise BadInput("data must be a JSON object", field="data")
    try:
        # What model_validate calls, without what it does before: every event passes here.
        known.model.__pydantic_validator__.validate_python(data, strict=True, extra="forbid")
    except ValidationError as error:
        raise first_problem(error, "data") from None
    return data


def read_data(name: str, major: int, data: Any) -> Shape:
    """Read an event's data as a worker does: unknown fields are ignored, older versions are brought up.

    Raises:
        NewerThanWorker: the event must wait for a newer worker.
        BadInput: the data never passed a gate of ours.
    """
    known = EVENT_TYPES.get(name)
    if known is None or major > known.major:
        raise NewerThanWorker(f"this worker does not know {name} version {major}", fix="upgrade the workers")
    try:
        return known.model.model_validate(data)
    except ValidationError as error:
        raise first_problem(error, "data") from None


def first_problem(error: ValidationError, prefix: str) -> BadInput:
    """Turn pydantic's error into ours: the field's path and the reason, never the input."""
    details = error.errors(include_input=False, include_url=False, include_context=False)
    first = details[0]
    # An unknown field's name is the caller's and may be as long as a document.
    path = ".".join(str(part)[:100] for part in (prefix, *first["loc"]) if part != "")
    message = first["msg"].removeprefix("Value error, ")
    more = f" ({len(details) - 1} more)" if len(details) > 1 else ""
    return BadInput(f"{path}: {message}{more}", field=path)

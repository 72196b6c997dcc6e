"""Every state that a thing can be in passes through here; `docs/states.md` draws what this file allows.

Each machine is a StrEnum whose members carry one sentence, and a table of transitions. The database's check
constraints hold the same words (a test compares them), and code that moves a thing asks `allowed` first.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class State(StrEnum):
    """A state with a sentence that says what it means to the owner of the thing."""

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> Self:
        """Keep the sentence beside the word."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


class EventState(State):
    """The life of an event in the ledger."""

    ACCEPTED = "accepted", "The ledger has the event; a worker will take it."
    RUNNING = "running", "A worker holds the event under a lease."
    RETRYING = "retrying", "An attempt failed; the next one has a time."
    PAUSED_BUDGET = "paused_budget", "The tenant's budget is used up; the event waits for the next period."
    DONE = "done", "The effect and the status were committed together."
    DEAD = "dead", "Given up, with the reason; it can be replayed or discarded."


class DocumentState(State):
    """The life of one version of a document."""

    PENDING = "pending", "Accepted, not yet searchable."
    INDEXED = "indexed", "Searchable in this version."
    SUPERSEDED = "superseded", "A newer version took its place."
    PURGED = "purged", "Deleted; a tombstone keeps the sequence."
    FAILED = "failed", "Could not be read or embedded; the older version, if any, is still served."


class AnswerState(State):
    """The life of an answer."""

    PENDING = "pending", "The question is accepted."
    STREAMING = "streaming", "The model is writing."
    ANSWERED = "answered", "Finished, with verified citations."
    ABSTAINED = "abstained", "Nothing relevant was found, so no answer is given."
    FAILED = "failed", "No answer could be made, with the reason."


class ExampleState(State):
    """The life of a training example."""

    PENDING = "pending", "Waits for approval."
    FREE = "free", "Valid, and not yet part of a run."
    RESERVED = "reserved", "Triggered a run that has not ended."
    USED = "used", "Triggered a run that ended with a model."
    QUARANTINED = "quarantined", "Breaks a rule; never trained on unless somebody approves it."
    WITHDRAWN = "withdrawn", "Taken back by its owner."


class RunState(State):
    """The life of a training run."""

    COLLECTING = "collecting", "The trigger is recorded; examples are being reserved."
    PREPARING = "preparing", "The training and validation files are being written."
    UPLOADING = "uploading", "The files are going to the provider."
    SUBMITTED = "submitted", "The intent to create the job is recorded; the job may exist."
    VALIDATING = "validating", "The provider checks the files."
    QUEUED = "queued", "The provider will start the job."
    RUNNING = "running", "The provider trains."
    EVALUATING = "evaluating", "The tuned model is compared with the base model on held-out examples."
    PROMOTED = "promoted", "The tuned model was better and serves the alias."
    REJECTED = "rejected", "The tuned model was not better; the table says why."
    FAILED = "failed", "The run ended without a model; its examples are free again."
    CANCELLED = "cancelled", "Somebody cancelled the run; its examples are free again."
    UNAVAILABLE = "unavailable", "The provider does not train for us; the examples are free again."


class DeliveryState(State):
    """The life of one message to one endpoint."""

    PENDING = "pending", "Written with the result; not yet sent."
    RETRYING = "retrying", "An attempt failed; the next one has a time."
    DELIVERED = "delivered", "The receiver answered 2xx."
    DEAD = "dead", "Given up, with the reason; it can be replayed."


class EndpointState(State):
    """The life of a webhook endpoint."""

    ACTIVE = "active", "Receives what it subscribed to."
    THROTTLED = "throttled", "Fails, or asked us to slow down; receives with delays."
    DISABLED = "disabled", "Receives nothing until its owner enables it."


def _event() -> dict[State, frozenset[State]]:
    e = EventState
    waiting = {e.RUNNING, e.DEAD}
    return {
        e.ACCEPTED: frozenset(waiting),
        # Running to running: the lease was lost and another worker took the event.
        e.RUNNING: frozenset({e.RUNNING, e.DONE, e.RETRYING, e.ACCEPTED, e.PAUSED_BUDGET, e.DEAD}),
        e.RETRYING: frozenset(waiting),
        e.PAUSED_BUDGET: frozenset(waiting),
        e.DONE: frozenset(),
        e.DEAD: frozenset({e.ACCEPTED}),
    }


def _document() -> dict[State, frozenset[State]]:
    d = DocumentState
    return {
        d.PENDING: frozenset({d.INDEXED, d.FAILED, d.SUPERSEDED, d.PURGED}),
        d.INDEXED: frozenset({d.INDEXED, d.SUPERSEDED, d.PURGED, d.FAILED}),
        d.FAILED: frozenset({d.INDEXED, d.FAILED, d.SUPERSEDED, d.PURGED}),
        d.SUPERSEDED: frozenset(),
        d.PURGED: frozenset({d.INDEXED, d.FAILED, d.PURGED}),
    }


def _answer() -> dict[State, frozenset[State]]:
    a = AnswerState
    return {
        a.PENDING: frozenset({a.STREAMING, a.ANSWERED, a.ABSTAINED, a.FAILED}),
        # Streaming to streaming: a second attempt starts over with `restart`.
        a.STREAMING: frozenset({a.STREAMING, a.ANSWERED, a.ABSTAINED, a.FAILED}),
        a.ANSWERED: frozenset(),
        a.ABSTAINED: frozenset(),
        a.FAILED: frozenset({a.STREAMING, a.ANSWERED, a.ABSTAINED}),
    }


def _example() -> dict[State, frozenset[State]]:
    x = ExampleState
    return {
        x.PENDING: frozenset({x.FREE, x.QUARANTINED, x.WITHDRAWN}),
        x.FREE: frozenset({x.RESERVED, x.QUARANTINED, x.WITHDRAWN}),
        x.RESERVED: frozenset({x.USED, x.FREE, x.WITHDRAWN}),
        x.USED: frozenset({x.WITHDRAWN}),
        x.QUARANTINED: frozenset({x.FREE, x.WITHDRAWN}),
        x.WITHDRAWN: frozenset(),
    }


def _run() -> dict[State, frozenset[State]]:
    r = RunState
    ended = {r.FAILED, r.CANCELLED, r.UNAVAILABLE}
    order = [
        r.COLLECTING,
        r.PREPARING,
        r.UPLOADING,
        r.SUBMITTED,
        r.VALIDATING,
        r.QUEUED,
        r.RUNNING,
        r.EVALUATING,
    ]
    table: dict[State, frozenset[State]] = {}
    for index, state in enumerate(order):
        # The provider may be ahead of our polling, so a state may be skipped, but none is gone back to.
        ahead = order[index + 1 : index + 2] if index < 3 else order[index + 1 :]
        table[state] = frozenset({*ahead, *ended})
    table[r.EVALUATING] = frozenset({r.PROMOTED, r.REJECTED, *ended})
    for state in (r.PROMOTED, r.REJECTED, *ended):
        table[state] = frozenset()
    return table


def _delivery() -> dict[State, frozenset[State]]:
    d = DeliveryState
    return {
        d.PENDING: frozenset({d.DELIVERED, d.RETRYING, d.DEAD}),
        d.RETRYING: frozenset({d.DELIVERED, d.RETRYING, d.DEAD}),
        d.DELIVERED: frozenset({d.PENDING}),
        d.DEAD: frozenset({d.PENDING}),
    }


def _endpoint() -> dict[State, frozenset[State]]:
    e = EndpointState
    return {
        e.ACTIVE: frozenset({e.THROTTLED, e.DISABLED}),
        e.THROTTLED: frozenset({e.ACTIVE, e.DISABLED}),
        e.DISABLED: frozenset({e.ACTIVE}),
    }


TRANSITIONS: dict[type[State], dict[State, frozenset[State]]] = {
    EventState: _event(),
    DocumentState: _document(),
    AnswerState: _answer(),
    ExampleState: _example(),
    RunState: _run(),
    DeliveryState: _delivery(),
    EndpointState: _endpoint(),
}
"""Machine → state → the states that may follow."""


def allowed(before: State, after: State) -> bool:
    """Whether a thing may go from one state to the other in one step."""
    return type(before) is type(after) and after in TRANSITIONS[type(before)][before]


def sources(after: State) -> list[str]:
    """The states from which `after` may be reached: what an UPDATE names in its WHERE clause."""
    return sorted(before for before, targets in TRANSITIONS[type(after)].items() if after in targets)


def is_final(state: State) -> bool:
    """Whether nothing follows by itself: the thing has ended, though somebody may replay it."""
    return (
        state in {EventState.DEAD, DeliveryState.DELIVERED, DeliveryState.DEAD}
        or not TRANSITIONS[type(state)][state]
    )

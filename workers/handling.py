"""What a wing gives to the runtime: a handler per event type, which returns an outcome and never publishes itself.

A handler does its network calls first, outside any transaction, and returns what is to be written as an `Effect`;
the runtime runs the effect together with the event's status and its follow-up events in one transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import redis.asyncio

from infra.budget import Budget
from infra.bus import Bus
from infra.database import Connection, Database
from infra.settings import Settings
from schemas.errors import PenstockError
from schemas.work import Publication, Work

if TYPE_CHECKING:
    from infra.llm import ModelApi

Effect: TypeAlias = Callable[[Connection], Awaitable[Sequence[Publication]]]
"""Writes what the work did, on a transaction that acts for the work's tenant, and returns what to say next.

It may run again after a rollback, so it changes nothing but the database.
"""


Write: TypeAlias = Callable[[Connection, Sequence[Any]], Awaitable[Sequence[Sequence[Publication]]]]


@dataclass(frozen=True, slots=True)
class Shared:
    """An effect that many works have in common: `write` gets the items of all that commit together.

    Its transaction acts for all their tenants, so its statements name the tenant of each row. It returns what each
    item says next, in order. When one item's effect fails, each is written by itself.
    """

    write: Write
    item: Any


End: TypeAlias = Callable[[Database, Sequence[tuple[Work, Any]]], Awaitable[Mapping[UUID, bool]]]


@dataclass(frozen=True, slots=True)
class OneCall:
    """An effect that one call can write together with the end of its event, where nothing has to be judged first.

    Attributes:
        end: gets the works that end together, each with its `item`. It locks their events under their tokens, names
            the tenants itself and returns whether each event that was ours has ended; those that have not are as
            they were.
        effect: writes the same step by step, for those.
    """

    end: End
    item: Any
    effect: Effect


@dataclass(frozen=True, slots=True)
class Done:
    """The work is finished: commit the effect and the publications, and mark the event done."""

    effect: Effect | Shared | OneCall | None = None
    publications: Sequence[Publication] = ()


@dataclass(frozen=True, slots=True)
class Later:
    """One step is finished: commit it, and bring the same event back after `delay` seconds, uncharged.

    Attributes:
        reason: a line for the event's story; none is added without it.
        forgiven: the deaths of the workers that held the event are forgotten.
    """

    delay: float
    effect: Effect | Shared | None = None
    publications: Sequence[Publication] = ()
    reason: str = ""
    forgiven: bool = False


Outcome: TypeAlias = Done | Later
Handle: TypeAlias = Callable[[Work], Awaitable[Outcome]]
OnDead: TypeAlias = Callable[[Connection, Work, PenstockError], Awaitable[Sequence[Publication]]]
OnLost: TypeAlias = Callable[[Work, PenstockError], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """How one event type is handled.

    Attributes:
        handle: does the work; made by `workers.engine.together.together` it gets many works of its type at once and
            returns an outcome for each. What it raises is classified by `schemas.errors`: Permanent buries the event,
            Retryable tries again, Uncharged waits without charging an attempt; anything else counts as retryable.
        on_dead: runs in the transaction that buries the event, so that the thing the event was about gets its
            failed state and its out event.
        on_lost: decides about an event whose worker died five times with it, as `handle` would: `Later` lets it rest.
            None buries it as `worker_lost`, because most likely the event is what killed them.
        max_attempts: charged attempts before the event is buried.
        announce_dead: whether burying publishes `event.dead`.
    """

    handle: Handle
    on_dead: OnDead | None = None
    on_lost: OnLost | None = None
    max_attempts: int = 8
    announce_dead: bool = True


@dataclass(frozen=True, slots=True)
class Resources:
    """What the composition root opened for a pool.

    Attributes:
        database: connections that act as the role ``penstock_worker``.
        redis: for streams and wake-ups; never a record.
        models: the model API, or None in pools that do not call one.
        worker_id: names this process in logs and leases.
    """

    settings: Settings
    database: Database
    redis: redis.asyncio.Redis
    bus: Bus
    budget: Budget
    models: ModelApi | None
    worker_id: str


OpenHandlers: TypeAlias = Callable[[Resources], AbstractAsyncContextManager[Mapping[str, HandlerSpec]]]
"""A wing's ``pool.open_handlers``: opens what the wing needs and yields event type → handler."""

HandlersIterator: TypeAlias = AsyncIterator[Mapping[str, HandlerSpec]]

"""Outcomes pass through here into the ledger: effect, status and follow-up events of many works in one transaction.

Rows are locked first, by fencing token and in id order, so that work whose lease was lost is left out before any of
its effect is written. When one effect of a group fails the group is rolled back and each is committed by itself: the
others succeed, and the failing one's error goes back to its own caller (P7).

Endings that write nothing but their status (waiting again, given back, done without an effect) need no transaction of
several statements: they are finished by one call, in larger groups. Nor do effects that know a call for all they write
(`OneCall`), as long as no webhook has to be matched.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import structlog

from infra import attempts, outbox
from infra.attempts import Finish
from infra.bus import Bus
from infra.coalesce import Coalescer
from infra.database import Connection, Database, act_for
from infra.outbox import Said
from schemas.errors import BudgetExceeded, LeaseLost, PenstockError, TransactionConflict, Unavailable
from schemas.states import EventState
from schemas.work import Publication, Work
from workers.engine.deadletters import trace_of
from workers.engine.policy import code_of
from workers.engine.types import Bury, Done, GiveBack, RetryAt, Verdict
from workers.handling import Done as Finished
from workers.handling import End, HandlerSpec, Later, OneCall, Outcome, Shared, Write

GROUP = 64
BARE_GROUP = 500
CONFLICT_RETRIES = 5
BY_STEPS = 60.0
"""Seconds for which a tenant is remembered whose endings one call could not write."""
MANY_TENANTS = 10_000
_log = structlog.get_logger("penstock.commit")


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended and what is to be written.

    Attributes:
        outcome: what the handler returned; None when it raised.
        verdict: what the policy decided.
        error: what was raised.
        spec: how the type is handled; None when this pool has no handler.
    """

    work: Work
    outcome: Outcome | None
    verdict: Verdict
    error: BaseException | None
    spec: HandlerSpec | None


WriteGroup: TypeAlias = Callable[[Sequence[Ending]], Awaitable[set[int]]]


class Committer:
    """Writes endings in groups and pushes their follow-ups afterwards."""

    def __init__(self, database: Database, bus: Bus) -> None:
        """Use a database that acts as the role ``penstock_worker``."""
        self._database = database
        self._bus = bus
        self._commit: Coalescer[Ending, None] = Coalescer(
            partial(self._group, self._write), limit=GROUP, parallel=2
        )
        self._at_once: Coalescer[Ending, None] = Coalescer(
            partial(self._group, self._write_at_once), limit=GROUP, parallel=2
        )
        self._by_steps: dict[str, float] = {}
        self._finish: Coalescer[Ending, None] = Coalescer(
            partial(self._group, self._write_bare), limit=BARE_GROUP, parallel=1
        )

    async def commit(self, ending: Ending) -> None:
        """Commit one ending, together with whatever else is ready.

        Raises:
            LeaseLost: the row carries another token; nothing was written.
            Unavailable: the database is away; the commit may or may not have arrived.
            Exception: whatever the effect raised; nothing was written.
        """
        if _is_bare(ending):
            await self._finish(ending)
            return
        if _one_call(ending) and self._by_steps.get(ending.work.tenant_id, 0.0) <= time.monotonic():
            try:
                await self._at_once(ending)
            except (LeaseLost, Unavailable):
                raise
            except Exception as error:  # noqa: BLE001 - nothing was written; the steps say what is wrong, if anything is
                _log.info("commit.step_by_step", error=code_of(error))
            else:
                return
        await self._commit(ending)

    async def _group(self, write: WriteGroup, endings: Sequence[Ending]) -> Sequence[BaseException | None]:
        try:
            lost = await _until_no_conflict(write, endings)
        except Exception as error:  # noqa: BLE001 - one of the group failed; each is tried by itself
            if len(endings) == 1:
                return [error]
            _log.info("commit.group_split", size=len(endings), error=code_of(error))
            results: list[BaseException | None] = []
            for ending in endings:
                results += await self._group(write, [ending])
            return results
        return [LeaseLost() if index in lost else None for index in range(len(endings))]

    async def _write_bare(self, endings: Sequence[Ending]) -> set[int]:
        """One call; returns the indexes of endings whose lease was lost."""
        held = await attempts.finish_bare(self._database, [_finish(ending) for ending in endings])
        return {index for index, ending in enumerate(endings) if ending.work.event_id not in held}

    async def _write_at_once(self, endings: Sequence[Ending]) -> set[int]:
        """One call for all; what it leaves is written step by step. Returns the indexes of endings whose lease was lost."""
        kinds: defaultdict[End, list[tuple[int, Any]]] = defaultdict(list)
        for index, ending in enumerate(endings):
            call = _one_call(ending)
            assert call is not None
            kinds[call.end].append((index, call.item))
        lost: set[int] = set()
        left: list[int] = []
        for end, items in kinds.items():
            ended = await end(self._database, [(endings[index].work, item) for index, item in items])
            for index, _ in items:
                match ended.get(endings[index].work.event_id):
                    case None:
                        lost.add(index)
                    case False:
                        left.append(index)
        if left:
            until = time.monotonic() + BY_STEPS
            if len(self._by_steps) > MANY_TENANTS:
                self._by_steps.clear()
            self._by_steps.update({endings[index].work.tenant_id: until for index in left})
            lost |= {left[place] for place in await self._write([endings[index] for index in left])}
        return lost

    async def _write(self, endings: Sequence[Ending]) -> set[int]:
        """One transaction; returns the indexes of endings whose lease was lost."""
        order = sorted(range(len(endings)), key=lambda index: endings[index].work.event_id)
        works = [endings[index].work for index in order]
        said: list[Said] = []
        finishes: list[Finish] = []
        written: list[Ending] = []
        lost: set[int] = set()
        tenants = sorted({work.tenant_id for work in works})
        async with self._database.connection() as connection, connection.transaction():
            held = await attempts.lock(connection, works)
            for index in order:
                ending = endings[index]
                state = held.get(ending.work.event_id)
                if state is None:
                    lost.add(index)
                elif state is EventState.RUNNING:
                    if len(tenants) > 1:
                        # Effects of several tenants share the transaction; each sees its own tenant only.
                        await act_for(connection, [ending.work.tenant_id])
                    said += outbox.said_by(ending.work, await _effect(connection, ending))
                    finishes.append(_finish(ending))
                    written.append(ending)
                # Any other state under our own token: an earlier commit of ours arrived although its reply did not.
            if len(tenants) > 1:
                await act_for(connection, tenants)
            said += await _shared(connection, written)
            pushables = await outbox.write(connection, said, attempts.ends(finishes))
        await self._bus.push(pushables)
        return lost

    async def aclose(self) -> None:
        """Wait for what is under way."""
        await self._finish.aclose()
        await self._at_once.aclose()
        await self._commit.aclose()


async def _until_no_conflict(write: WriteGroup, endings: Sequence[Ending]) -> set[int]:
    """Write again when two transactions stood in each other's way."""
    for _ in range(CONFLICT_RETRIES):
        with contextlib.suppress(TransactionConflict):
            return await write(endings)
    return await write(endings)


def _one_call(ending: Ending) -> OneCall | None:
    """How the ending can be written by one call, if it can."""
    outcome = ending.outcome
    if isinstance(outcome, Finished) and not outcome.publications and isinstance(outcome.effect, OneCall):
        return outcome.effect
    return None


def _is_bare(ending: Ending) -> bool:
    """Whether the ending writes nothing but the event's own row."""
    outcome = ending.outcome
    if outcome is None:
        return not isinstance(ending.verdict, Bury)
    return outcome.effect is None and not outcome.publications


async def _effect(connection: Connection, ending: Ending) -> list[Publication]:
    """Run what the ending writes for its tenant, and collect what it says."""
    outcome, verdict = ending.outcome, ending.verdict
    if outcome is not None:
        said = list(outcome.publications)
        effect = outcome.effect.effect if isinstance(outcome.effect, OneCall) else outcome.effect
        if effect is not None and not isinstance(effect, Shared):
            said += await effect(connection)
        return said
    if not isinstance(verdict, Bury) or ending.error is None:
        return []
    error = _as_penstock(ending.error)
    said = []
    if ending.spec is not None and ending.spec.on_dead is not None:
        said += await ending.spec.on_dead(connection, ending.work, error)
    if ending.spec is None or ending.spec.announce_dead:
        said.append(
            Publication(
                "event.dead",
                {"event_id": str(ending.work.event_id), "type": ending.work.type, "error": error.as_dict()},
                subject=ending.work.subject,
            )
        )
    return said


async def _shared(connection: Connection, endings: Sequence[Ending]) -> list[Said]:
    """Run the effects that several endings have in common, once per kind, and collect what they say."""
    kinds: defaultdict[Write, list[tuple[Work, Any]]] = defaultdict(list)
    for ending in endings:
        if ending.outcome is not None and isinstance(ending.outcome.effect, Shared):
            kinds[ending.outcome.effect.write].append((ending.work, ending.outcome.effect.item))
    said: list[Said] = []
    for write, works in kinds.items():
        results = await write(connection, [item for _, item in works])
        for (work, _), publications in zip(works, results, strict=True):
            said += outbox.said_by(work, publications)
    return said


def _as_penstock(error: BaseException) -> PenstockError:
    """An error that may be stored and shown: foreign exceptions keep their class name only (P8)."""
    if isinstance(error, PenstockError):
        return error
    return PenstockError(f"the handler raised {type(error).__name__}", fix="see the worker's log")


def _code(ending: Ending) -> str | None:
    return None if ending.error is None else code_of(ending.error)


def _finish(ending: Ending) -> Finish:
    work, verdict = ending.work, ending.verdict
    note: dict[str, Any] | None
    error: dict[str, Any] | None = None
    if ending.error is not None:
        # The trace is for operators: file, line and function. What a tenant sees leaves it out.
        kept = _as_penstock(ending.error).as_dict()
        error = {**kept, "code": _code(ending), "trace": trace_of(ending.error)}
    if isinstance(ending.outcome, Later):
        note = {"what": "waiting", "reason": ending.outcome.reason} if ending.outcome.reason else None
        return Finish(work, EventState.ACCEPTED, 0, delay=ending.outcome.delay, note=note)
    match verdict:
        case Done():
            return Finish(work, EventState.DONE, work.attempt)
        case RetryAt(delay=delay):
            note = {"what": "failed", "error": _code(ending), "retry_in": round(delay, 3)}
            return Finish(work, EventState.RETRYING, work.attempt, delay=delay, error=error, note=note)
        case GiveBack(delay=delay):
            state = (
                EventState.PAUSED_BUDGET if isinstance(ending.error, BudgetExceeded) else EventState.ACCEPTED
            )
            note = {"what": "given back", "error": _code(ending), "retry_in": round(delay, 3)}
            return Finish(work, state, work.attempt - 1, delay=delay, error=error, note=note)
        case Bury(reason=reason):
            return Finish(
                work, EventState.DEAD, work.attempt, error=error, note={"what": "dead", "error": reason}
            )
        case _:
            raise TypeError(f"{type(verdict).__name__} ends no attempt")

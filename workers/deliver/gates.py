"""Attempts pass through here on their way out: each endpoint has a gate, so that a slow or dead one holds only its share.

A gate lets a few attempts through at a time; more as they succeed, fewer as they fail. It is shut while its breaker
pauses, and lets one through to find out afterwards. Who cannot pass within a moment goes back to the ledger with a time
of its own, spread out at the pace of the endpoint, so that a backlog costs little however long it is.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from workers.deliver.breaker import Breaker, is_down
from workers.deliver.schedule import Result

FEWEST, FIRST, MOST = 1.0, 1.0, 8.0
"""Attempts under way to one endpoint: at least, at first, at most."""
PATIENCE = 1.0
"""Seconds that an attempt may wait for a place."""
SILENCE = 0.5
"""Seconds without an end from which on an endpoint is taken to be as slow as that; less may be a process that is busy."""
UNKNOWN = 0.002
"""Seconds that an attempt is taken to need as long as none has ended: who is turned away asks again when more is known."""
SPREAD = 600.0
"""Seconds over which at most those are spread that do not get through."""
KEPT = 20_000
"""Endpoints that are remembered while nothing is sent to them."""


class Shut(Exception):
    """The endpoint takes nothing more at the moment; come back after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__(delay)
        self.delay = delay


@dataclass(slots=True, eq=False)
class Gate:
    """One endpoint's gate.

    Attributes:
        places: attempts that may be under way.
        silent_since: when an attempt last ended, or the first of those under way began.
        seconds: what an attempt lately needed.
        gap: seconds that lately passed from one end to the next while something was under way.
        proven: whether the last that was heard of it was good; until then few may wait, and so hold a worker's slot.
        tail: until when the times are given out at which those who were turned away come back.
    """

    clock: Callable[[], float]
    breaker: Breaker = field(default_factory=Breaker)
    places: float = FIRST
    silent_since: float = 0.0
    seconds: float = UNKNOWN
    gap: float = UNKNOWN
    proven: bool = False
    tail: float = 0.0
    under_way: int = 0
    waiting: OrderedDict[asyncio.Future[None], None] = field(default_factory=OrderedDict)

    async def enter(self) -> None:
        """Take a place.

        Raises:
            Shut: none will be free in a moment.
        """
        if self._free():
            self._take()
            return
        if self.is_shut():
            raise Shut(self.turned_away())
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting[place] = None
        try:
            async with asyncio.timeout(PATIENCE):
                await place
        except TimeoutError:
            if not _given(place):
                raise Shut(self.turned_away()) from None
        except asyncio.CancelledError:
            if _given(place):
                self.leave(None)
            raise
        finally:
            self.waiting.pop(place, None)

    def is_shut(self) -> bool:
        """Whether the next one would be sent away at once."""
        if self._free():
            return False
        return self.clock() < self.breaker.paused_until or self.breaker.is_open or not self._worth_waiting()

    def leave(self, result: Result | None, seconds: float = 0.0) -> float | None:
        """Give the place back.

        Args:
            result: what the attempt came to; None when that says nothing about the endpoint.
            seconds: how long it took.

        Returns:
            The seconds of a pause that begins now, or None.
        """
        self.under_way -= 1
        now = self.clock()
        gap, self.silent_since = now - self.silent_since, now
        pause = None
        if result is not None:
            self.gap += (gap - self.gap) / 8
            self.seconds += (seconds - self.seconds) / 8
            pause = self.breaker.heard(result, self.clock(), random.uniform(-1, 1))  # noqa: S311 - jitter
            self.proven = not is_down(result)
            self.places = min(self.places + 1, MOST) if self.proven else max(self.places / 2, FEWEST)
        self._next()
        return pause

    def spare(self, seconds: float) -> None:
        """Another process found out that the endpoint is to be left alone for so long."""
        self.breaker.spare(seconds, self.clock())

    def pace(self) -> float:
        """Seconds from one attempt to the next, as the endpoint lately took them; more when it is silent for longer."""
        # In a busy process attempts wait for us and take long, and with few of them ends are far apart: the better counts.
        lately = min(self.seconds / max(int(self.places), 1), self.gap)
        silent = self.clock() - self.silent_since
        return max(lately, silent) if self.under_way and silent > SILENCE else lately

    def turned_away(self, pace: float | None = None) -> float:
        """The seconds after which the next one who cannot pass should come back."""
        now = self.clock()
        first = max(now, self.breaker.paused_until) + 0.25
        self.tail = min(max(self.tail, first) + (self.pace() if pace is None else pace), first + SPREAD)
        # The last ones share the end of the spread; jitter keeps them from coming all at once.
        return (self.tail - now) * random.uniform(0.9, 1.1)  # noqa: S311 - jitter

    def _worth_waiting(self) -> bool:
        """Whether the next one will get a place in a moment."""
        before = len(self.waiting)
        return (before + 1) * self.pace() < PATIENCE and (self.proven or before < int(self.places))

    def _free(self) -> bool:
        if self.clock() < self.breaker.paused_until:
            return False
        places = 1 if self.breaker.is_open else int(self.places)
        return self.under_way < places and not self.waiting

    def _next(self) -> None:
        if self.clock() < self.breaker.paused_until or self.breaker.is_open:
            return
        free = int(self.places) - self.under_way
        for place in self.waiting:
            if free <= 0:
                return
            if not place.done():
                place.set_result(None)
                self._take()
                free -= 1

    def _take(self) -> None:
        if not self.under_way:
            self.silent_since = self.clock()
        self.under_way += 1


@dataclass(slots=True)
class Gates:
    """The gates of all endpoints that were lately sent to."""

    clock: Callable[[], float] = time.monotonic
    _gates: OrderedDict[UUID, Gate] = field(default_factory=OrderedDict)

    def of(self, endpoint_id: UUID) -> Gate:
        """An endpoint's gate."""
        gate = self._gates.get(endpoint_id)
        if gate is None:
            gate = self._gates[endpoint_id] = Gate(self.clock)
            self._forget()
        self._gates.move_to_end(endpoint_id)
        return gate

    def known(self, endpoint: str | None) -> Gate | None:
        """An endpoint's gate, where there is one already."""
        try:
            return self._gates.get(UUID(endpoint))
        except (TypeError, ValueError):
            return None

    def _forget(self) -> None:
        while len(self._gates) > KEPT:
            endpoint_id, gate = next(iter(self._gates.items()))
            if gate.under_way or gate.waiting:
                return
            del self._gates[endpoint_id]

    def __len__(self) -> int:
        """How many endpoints are remembered."""
        return len(self._gates)


def _given(place: asyncio.Future[None]) -> bool:
    return place.done() and not place.cancelled()

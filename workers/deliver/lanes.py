"""Attempts pass through here on their way out, a few per endpoint at a time, so that a slow one holds only its share.

An attempt that finds its lane full waits a moment for it. If the lane does not move meanwhile the attempt goes back
to the ledger instead of holding a place in the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

IN_FLIGHT = 8
PATIENCE = 1.0
"""Seconds that an attempt waits in a full lane."""


class LaneFull(Exception):
    """The endpoint has enough attempts under way."""


@dataclass(slots=True)
class _Lane:
    places: asyncio.Semaphore
    users: int = 0


@dataclass(slots=True)
class Lanes:
    """One lane per endpoint, for as long as it is used."""

    in_flight: int = IN_FLIGHT
    patience: float = PATIENCE
    _lanes: dict[UUID, _Lane] = field(default_factory=dict)

    @asynccontextmanager
    async def enter(self, endpoint_id: UUID) -> AsyncIterator[None]:
        """Hold one of the endpoint's places.

        Raises:
            LaneFull: none became free in time.
        """
        lane = self._lanes.setdefault(endpoint_id, _Lane(asyncio.Semaphore(self.in_flight)))
        lane.users += 1
        try:
            await self._take(lane)
            try:
                yield
            finally:
                lane.places.release()
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[endpoint_id]

    async def _take(self, lane: _Lane) -> None:
        if not lane.places.locked():
            await lane.places.acquire()
            return
        try:
            async with asyncio.timeout(self.patience):
                await lane.places.acquire()
        except TimeoutError:
            raise LaneFull from None

    def __len__(self) -> int:
        """How many endpoints have attempts under way or waiting."""
        return len(self._lanes)

"""A ring from a producer passes through here and wakes the worker, so that an idle worker need not poll.

The bell is a Redis list with at most a few elements; each ring wakes one worker of the fleet. A worker without a
free slot does not listen, and a ring that reaches it too late is passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from workers.engine.link import RedisLink
from workers.engine.store import QueueStore

LISTEN: Final = 20.0


class Doorbell:
    """Listens while the worker is hungry.

    Args:
        store: the queue.
        link: waits while Redis is away.
        hungry: whether the worker has free slots.
        rung: called on each ring.
    """

    def __init__(
        self,
        store: QueueStore,
        link: RedisLink,
        *,
        hungry: Callable[[], bool],
        rung: Callable[[], None],
    ) -> None:
        self._store = store
        self._link = link
        self._hungry = hungry
        self._rung = rung
        self._room = asyncio.Event()

    def room(self) -> None:
        """Say that slots became free."""
        if not self._room.is_set():
            self._room.set()

    async def listen(self) -> None:
        """Listen until cancelled."""
        while True:
            while not self._hungry():
                self._room.clear()
                await self._room.wait()
            if not await self._link.persist(lambda: self._store.listen(timeout=LISTEN)):
                continue
            self._rung()
            if not self._hungry():
                await self._link.persist(self._store.ring)

"""A ring from a producer passes through here and wakes the worker, so that an idle worker need not poll.

The bell is a Redis list with at most a few elements; each ring wakes one worker of the fleet. A worker with slots to
spare sends its claim along with its waiting: Redis runs it at the moment of the ring, and the jobs come with the
wake-up, a round trip earlier. A worker without a free slot does not listen, and a ring that reaches it too late is
passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from redis.exceptions import RedisError

from workers.engine.link import RedisLink
from workers.engine.store import Claim, QueueStore

LISTEN: Final = 20.0
MOST: Final = 16
"""Jobs that come with a ring at most: the slots for them are taken while the worker listens."""
LAST_WORD: Final = 1.0


class Doorbell:
    """Listens while the worker is hungry.

    Args:
        store: the queue.
        link: waits while Redis is away.
        room: how many slots are free, not counting those that are `reserved`.
        rung: called on a ring that brought no claim.
        brought: called with the claim that came with a ring, or after `LISTEN` seconds without one.
        aborts: whether claims look up abort requests.
    """

    def __init__(
        self,
        store: QueueStore,
        link: RedisLink,
        *,
        room: Callable[[], int],
        rung: Callable[[], None],
        brought: Callable[[Claim], None],
        aborts: bool,
    ) -> None:
        self.reserved = 0
        self.leaving = False
        self._store = store
        self._link = link
        self._room = room
        self._rung = rung
        self._brought = brought
        self._aborts = aborts
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Say that slots became free."""
        if not self._changed.is_set():
            self._changed.set()

    async def listen(self) -> None:
        """Listen until cancelled."""
        while True:
            while (room := self._room()) <= 0 or self.leaving:
                self._changed.clear()
                await self._changed.wait()
            # One slot stays free for what no ring announces: deferred jobs, and producers that do not ring.
            want = min(room - 1, MOST)
            claim = await self._claim(want) if want > 0 else None
            if claim is not None:
                self._brought(claim)
                await asyncio.sleep(0)  # the jobs begin before the next listening does
            elif want > 0 or await self._link.persist(partial(self._store.listen, timeout=LISTEN)):
                self._rung()
                if self._room() <= 0:
                    await self._link.persist(self._store.ring)

    async def leave(self) -> None:
        """End a claim that waits for the bell, so that it brings nothing to a worker that is gone."""
        first, self.leaving = not self.leaving, True
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                if first and self.reserved:
                    await self._store.ring(own=True)
                while self.reserved and self._link.up:
                    self._changed.clear()
                    await self._changed.wait()

    async def _claim(self, want: int) -> Claim | None:
        self.reserved = want
        try:
            return await self._link.persist(
                partial(self._store.listen_and_claim, timeout=LISTEN, want=want, aborts=self._aborts)
            )
        finally:
            self.reserved = 0
            self.changed()

"""Whatever gives the main loop a reason to look again passes through here and ends its sleep."""

from __future__ import annotations

import asyncio


class Alarm:
    """An event with a timeout that costs one timer, not a task (`asyncio.wait_for` costs both)."""

    def __init__(self) -> None:
        self._rung = False
        self._sleeper: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """End the sleep, or make the next one end at once."""
        self._rung = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Sleep until rung, `seconds` at most."""
        if not self._rung and seconds > 0:
            loop = asyncio.get_running_loop()
            self._sleeper = loop.create_future()
            timer = loop.call_later(seconds, self.ring)
            try:
                await self._sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        self._rung = False

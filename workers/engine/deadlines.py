"""Running jobs wait here for their timeout; those that reach it are cancelled.

Most jobs of a worker share one timeout, so their deadlines come in the order of their starts: one timer per timeout
value watches the oldest, instead of one timer per job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Calls `expired` for each item that stays longer than its timeout."""

    def __init__(self, expired: Callable[[T], None]) -> None:
        self._expired = expired
        self._due: dict[float, dict[T, float]] = {}

    def add(self, items: Iterable[T], seconds: float) -> None:
        """Start the clock of items."""
        loop = asyncio.get_running_loop()
        due = self._due.get(seconds)
        if due is None:
            due = self._due[seconds] = {}
            loop.call_later(seconds, self._look, seconds)
        due.update(dict.fromkeys(items, loop.time() + seconds))

    def drop(self, item: T, seconds: float) -> None:
        """Stop an item's clock, if it runs."""
        due = self._due.get(seconds)
        if due is not None:
            due.pop(item, None)

    def _look(self, seconds: float) -> None:
        """Call out what is due; look again when the oldest of the rest will be."""
        loop = asyncio.get_running_loop()
        due, now = self._due[seconds], loop.time()
        for item, _ in list(takewhile(lambda entry: entry[1] <= now, due.items())):
            del due[item]
            self._expired(item)
        if due:
            loop.call_at(next(iter(due.values())), self._look, seconds)
        else:
            del self._due[seconds]

"""The stages of one question pass here and leave as milliseconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime


class Clock:
    """Milliseconds per stage of one question."""

    def __init__(self, accepted_at: datetime) -> None:
        """Begin; what came before was waiting."""
        waited = (datetime.now(UTC) - accepted_at).total_seconds() * 1000
        self._timings: dict[str, float] = {"queue": max(0.0, waited)}
        self._started = self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to this stage."""
        now = time.monotonic()
        self._timings[stage] = (now - self._last) * 1000
        self._last = now

    def note(self, timings: Mapping[str, float]) -> None:
        """Parts of a stage that were measured elsewhere."""
        self._timings.update(timings)

    def shown(self) -> dict[str, float]:
        """All stages, and the whole time since the worker took the question up."""
        total = (time.monotonic() - self._started) * 1000
        return {name: round(value, 2) for name, value in {**self._timings, "total": total}.items()}

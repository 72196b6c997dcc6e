"""Every authenticated request passes through here and is counted against its key's rate, a minute at a time.

Each gateway process counts for itself: a shared counter would cost a round trip per request and would make a rate,
which protects this process, depend on Redis. Headers follow draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from schemas.errors import LimitReached

WINDOW = 60.0
MAX_KEYS = 10_000


class TooManyRequests(LimitReached):
    """The API key has sent its requests of this minute."""

    code = "too_many_requests"

    def __init__(self, quota: int, seconds: int) -> None:
        """Say how many are allowed and, in `retry_after`, when the next ones are."""
        super().__init__(
            f"the API key may send {quota} requests a minute",
            fix="send events in batches, or ask for more",
            retry_after=seconds,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands within its minute.

    Attributes:
        quota: requests a minute.
        left: how many more; -1 when this one was already too many.
        seconds: until the minute ends.
    """

    quota: int
    left: int
    seconds: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The standing as response headers."""
        return [
            (b"ratelimit-policy", b'"key";q=%d;w=%d' % (self.quota, WINDOW)),
            (b"ratelimit", b'"key";r=%d;t=%d' % (max(self.left, 0), self.seconds)),
        ]


@dataclass(slots=True)
class _Minute:
    ends: float
    used: int


class Rates:
    """Counts requests of this process by key."""

    def __init__(self) -> None:
        """Nobody has sent anything yet."""
        self._minutes: dict[str, _Minute] = {}

    def count(self, key_id: str, quota: int, now: float | None = None) -> Standing:
        """Count one request; one beyond the quota counts too, and is told by `left`."""
        now = time.monotonic() if now is None else now
        minute = self._minutes.get(key_id)
        if minute is None or minute.ends <= now:
            if minute is None and len(self._minutes) >= MAX_KEYS:
                self._forget(now)
            minute = self._minutes[key_id] = _Minute(now + WINDOW, 0)
        minute.used = min(minute.used + 1, quota + 1)
        return Standing(quota, quota - minute.used, max(1, math.ceil(minute.ends - now)))

    def _forget(self, now: float) -> None:
        """Make room: minutes that have passed first, or else the one that began first."""
        for key_id in [key_id for key_id, minute in self._minutes.items() if minute.ends <= now]:
            del self._minutes[key_id]
        if len(self._minutes) >= MAX_KEYS:
            del self._minutes[next(iter(self._minutes))]

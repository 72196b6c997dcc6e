"""Results of attempts go in, and what the endpoint can take comes out: closed, open, or one attempt to find out.

A circuit breaker after Nygard: it opens when most of the last results failed, lets one attempt through when its time
is up, and closes when that one succeeds. Pure: the caller brings the time and the dice. What counts as failed is that
the endpoint is down or overloaded; an answer such as 404 says that it is alive.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.deliver.schedule import Failed, Replied, Result

WINDOW = 20
"""Results that are looked at."""
MEMORY = 600.0
"""Seconds after which a result is forgotten."""
MINIMUM = 8
"""Results without which nothing is decided."""
THRESHOLD = 0.8
"""The share of failures at which the breaker opens."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
SLOWER = frozenset({429, 502, 503, 504})
"""Answers that ask us to slow down."""
SHORT_PAUSE = 1.0
LONGEST_ASKED = 900.0
"""The longest pause of a whole endpoint that one `Retry-After` can ask for; the message itself waits longer."""


def is_down(result: Result) -> bool:
    """Whether a result says that the endpoint is down or overloaded."""
    match result:
        case Failed():
            return True
        case Replied(status=status):
            return status >= 500 or status in SLOWER or status == 408
        case _:
            return False


def asks_to_slow_down(result: Result) -> bool:
    """Whether the receiver asked us to slow down."""
    return isinstance(result, Replied) and result.status in SLOWER


@dataclass(slots=True)
class Breaker:
    """What is known of one endpoint.

    Attributes:
        paused_until: nothing is sent before; seconds on the caller's clock.
        is_open: whether the next attempt is the one that finds out.
        strikes: pauses in a row without a success between them.
    """

    paused_until: float = 0.0
    is_open: bool = False
    strikes: int = 0
    _results: list[tuple[float, bool]] = field(default_factory=list)

    def heard(self, result: Result, now: float, spread: float) -> float | None:
        """Take in a result.

        Args:
            result: of an attempt that has just ended.
            now: seconds on the caller's clock.
            spread: uniform in [-1, 1], drawn by the caller.

        Returns:
            The seconds of a pause that begins now, or None.
        """
        down = is_down(result)
        self._results = [one for one in self._results[1 - WINDOW :] if now - one[0] < MEMORY]
        self._results.append((now, down))
        asked = _asked(result)
        if now < self.paused_until:
            # It was under way when the pause began: no news, unless it asks for more.
            return self._pause(asked, now) if now + asked > self.paused_until else None
        if not down:
            if self.is_open:
                self._results.clear()
            self.is_open, self.strikes = False, 0
            return None
        if self.is_open or self._mostly_failed():
            self.is_open = True
            pause = min(FIRST_PAUSE * 2**self.strikes, LONGEST_PAUSE)
        elif asks_to_slow_down(result):
            pause = min(SHORT_PAUSE * 2**self.strikes, LONGEST_PAUSE)
        else:
            return None
        self.strikes = min(self.strikes + 1, 16)
        return self._pause(max(pause * (1 + spread / 5), asked), now)

    def spare(self, seconds: float, now: float) -> None:
        """Another process found out that the endpoint is to be left alone for so long."""
        self.paused_until = max(self.paused_until, now + seconds)

    def _mostly_failed(self) -> bool:
        failed = sum(down for _, down in self._results)
        return len(self._results) >= MINIMUM and failed >= THRESHOLD * len(self._results)

    def _pause(self, seconds: float, now: float) -> float:
        self.paused_until = max(self.paused_until, now + seconds)
        return seconds


def _asked(result: Result) -> float:
    if isinstance(result, Replied) and result.status in SLOWER and result.retry_after is not None:
        return min(result.retry_after, LONGEST_ASKED)
    return 0.0

"""What a claim saw of the queue becomes the time and the kind of the next one."""

from __future__ import annotations

from typing import Final

from workers.engine.store import Claim

SHORTEST_POLL: Final = 0.005
HELD_POLL: Final = 0.1


class Schedule:
    """When to claim next. Times are those of the event loop.

    A suspect (a job whose worker died at least twice) is claimed alone: first nothing new is claimed until what runs
    has ended, then the suspects one by one, then claiming goes on as before. A worker that isolates suspects in child
    processes need not wait: it claims them one by one beside the others.

    Args:
        poll: seconds between claims when nothing gives a reason, for the sake of producers that do not ring.
        isolates: whether suspects run in child processes.
    """

    def __init__(self, poll: float, *, isolates: bool) -> None:
        self.poll = max(poll, SHORTEST_POLL)
        self.isolates = isolates
        self.wanted = True
        self.suspects = False
        self.alone = False
        self.held = False
        self.claim_at = 0.0
        self.tick_at = 0.0
        self._seen_ms = 0

    def restart(self) -> None:
        """Forget the times of an earlier run."""
        self.wanted = True
        self.claim_at = self.tick_at = 0.0

    def due(self, now: float) -> bool:
        """Whether there is a reason to claim."""
        return self.wanted or now >= self.claim_at

    def room(self, *, free: int, running: int) -> int:
        """How many jobs the next claim may bring."""
        if self.alone:
            return 0
        if self.suspects and not self.isolates:
            return 1 if running == 0 else 0
        return max(0, free)

    def saw(self, claim: Claim, now: float) -> None:
        """Learn from a claim."""
        older, self._seen_ms = claim.now_ms < self._seen_ms, claim.now_ms
        if older:
            # Two were on their way and overtook each other; a third knows better than this one.
            self.wanted = True
            return
        if self.suspects and not self.isolates:
            # It was for a suspect. If there was none left, go back to claiming many.
            self.suspects = self.alone = bool(claim.jobs)
            self.wanted = True
            return
        self.suspects = claim.suspects > 0
        self.wanted = claim.more or (self.suspects and not self.isolates)
        self.held = claim.held
        # Limits hold for the fleet: another worker's job may make room, of which nobody tells us.
        wait = min(self.poll, HELD_POLL) if claim.held else self.poll
        if claim.next_due_ms is not None:
            # One millisecond more, because Redis's clock was cut to whole ones.
            wait = min(wait, max(0.0, (claim.next_due_ms - claim.now_ms + 1) / 1000))
        self.claim_at = now + wait

    def delegated(self, now: float) -> None:
        """Leave the next claim to somebody else, who calls `saw`."""
        self.wanted = False
        self.claim_at = now + self.poll

    def ticked(self, now: float) -> None:
        """Plan the next housekeeping."""
        self.tick_at = now + self.poll

    def rest(self, now: float, *, room: int) -> float:
        """Seconds until the next reason to wake; 0 when there is one already."""
        if room > 0 and self.wanted:
            return 0.0
        return max(0.0, (min(self.claim_at, self.tick_at) if room > 0 else self.tick_at) - now)

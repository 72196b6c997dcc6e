"""The Redis keys that Penstock adds beside arq's: producers ring with them, the engine claims with them.

arq's own keys keep arq's names. Ours are `penstock:v1:<queue>:<what>`; each has a time to live or an owner, named
in its docstring. Redis Cluster is not supported, so there are no hash tags.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "penstock:v1:"


def bell(queue: str) -> str:
    """A list of at most a few elements; idle workers wait on it with BLPOP. Expires after a minute."""
    return f"{PREFIX}{queue}:bell"


def lane_prefix(queue: str) -> str:
    """Begins the lanes: lists of job ids by urgency, type and tenant; owned by the queue, gone when empty."""
    return f"{PREFIX}{queue}:lane:"


def turns(queue: str, *, urgent: bool) -> str:
    """A list of the lanes that have work, in the order of their turns; owned by the queue, gone when empty."""
    return f"{PREFIX}{queue}:turns:{'urgent' if urgent else 'bulk'}"


def turn(queue: str) -> str:
    """Counts claims, so that shares also hold for workers that claim one job at a time; expires after a day."""
    return f"{PREFIX}{queue}:turn"


def group_prefix(queue: str) -> str:
    """Begins the sets of job ids of groups whose number at once is limited; each expires after a day."""
    return f"{PREFIX}{queue}:group:"


def tally(queue: str) -> str:
    """A hash of sums by event type: attempts that ended, their waits and times; expires after 30 idle days."""
    return f"{PREFIX}{queue}:tally"


def paused(queue: str) -> str:
    """Exists while an operator has paused the queue; owned by the operator."""
    return f"{PREFIX}{queue}:paused"


def lost(queue: str) -> str:
    """A hash from job id to the number of leases that ran out; expires a day after the last loss."""
    return f"{PREFIX}{queue}:lost"


def clock(queue: str) -> str:
    """The highest fencing token given out; deleted when the queue is empty (then Redis's clock alone is enough)."""
    return f"{PREFIX}{queue}:clock"


def running(queue: str) -> str:
    """A sorted set of the claims that still hold jobs, by the end of their lease; owned by the workers that made them."""
    return f"{PREFIX}{queue}:running"


def held(queue: str) -> str:
    """A hash from such a claim's token to the number of jobs that it still holds."""
    return f"{PREFIX}{queue}:held"


def dead(queue: str) -> str:
    """A hash from job id to dead letter, for jobs without a ledger row; owned by the operator."""
    return f"{PREFIX}{queue}:dead"


def dead_times(queue: str) -> str:
    """A sorted set of the same ids by time of death, so that they can be listed in order."""
    return f"{PREFIX}{queue}:dead:at"


def rate(endpoint: str) -> str:
    """When the next message to a webhook endpoint with a rate limit is due; expires a second after that."""
    return f"{PREFIX}rate:{endpoint}"

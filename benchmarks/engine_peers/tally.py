"""Every job of a throughput sample passes through here: the rate is that from the first job's body to the last one's.

The same rule for all: neither a worker's start nor its shutdown counts. Standard library only, because it runs in the
venvs of the peers too.
"""

from __future__ import annotations

import argparse
import json
import time


class Tally:
    """Counts jobs; `complete` becomes true with the last."""

    def __init__(self, expected: int) -> None:
        """Wait for so many jobs."""
        self.expected = expected
        self.count = 0
        self.first = 0.0
        self.last = 0.0

    @property
    def complete(self) -> bool:
        """Whether all jobs have run."""
        return self.count >= self.expected

    def add(self) -> None:
        """Count one job."""
        now = time.time()
        if self.count == 0:
            self.first = now
        self.count += 1
        self.last = now

    def tell(self, **more: float) -> None:
        """Print what was counted as one JSON object."""
        found = {"count": self.count, "first": self.first, "last": self.last, **more}
        print(json.dumps(found), flush=True)


def arguments() -> argparse.Namespace:
    """What every driver is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True, help="the Redis URL")
    parser.add_argument("--count", type=int, required=True, help="how many jobs")
    parser.add_argument("--mode", default="", help="which of the peer's settings")
    return parser.parse_args()

"""Waits for a condition outside an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], *, within: float = 60.0) -> None:
    """Return when the condition holds; what it raises from the system counts as not yet."""
    deadline = time.monotonic() + within
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.05)

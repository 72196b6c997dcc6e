"""Every request is counted here, so that a test can prove how often somebody paid."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import asdict, dataclass

from infra.local.model.reply import Usage

KEPT_CALLS = 2000
"""How many single calls are remembered, newest last."""


@dataclass(slots=True)
class Count:
    """What happened at one endpoint.

    `requests` came in; `served` did their work, which is what a provider charges for, whether or not the
    reply arrived; `refused` were answered with an error; `aborted` were left by the client or by a fault.
    """

    requests: int = 0
    served: int = 0
    refused: int = 0
    aborted: int = 0
    inputs: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """One finished request; no text of it."""

    endpoint: str
    at: float
    seconds: float
    status: int | None
    fault: str | None
    model: str | None
    inputs: int
    tokens: int


class Calls:
    """The counts of all endpoints."""

    def __init__(self) -> None:
        self._counts: dict[str, Count] = {}
        self._models: Counter[str] = Counter()
        self._calls: deque[Call] = deque(maxlen=KEPT_CALLS)

    def of(self, endpoint: str) -> Count:
        """The count of one endpoint."""
        return self._counts.setdefault(endpoint, Count())

    def arrived(self, endpoint: str) -> Count:
        """A request came in; the count stays the one to finish on, even when all are reset meanwhile."""
        count = self.of(endpoint)
        count.requests += 1
        count.in_flight += 1
        count.most_in_flight = max(count.most_in_flight, count.in_flight)
        return count

    def served(self, count: Count, usage: Usage) -> None:
        """A request's work was done."""
        count.served += 1
        count.inputs += usage.inputs
        count.prompt_tokens += usage.prompt_tokens
        count.completion_tokens += usage.completion_tokens
        count.tokens += usage.prompt_tokens + usage.completion_tokens
        if usage.model is not None:
            self._models[usage.model] += 1

    def finished(
        self,
        count: Count,
        endpoint: str,
        *,
        started: float,
        status: int | None,
        fault: str | None,
        usage: Usage,
    ) -> None:
        """A request is over; `status` None means that no whole reply was sent."""
        took = time.monotonic() - started
        count.in_flight -= 1
        count.seconds += took
        count.aborted += status is None
        count.refused += status is not None and status >= 400
        tokens = usage.prompt_tokens + usage.completion_tokens
        self._calls.append(
            Call(endpoint, time.time() - took, took, status, fault, usage.model, usage.inputs, tokens)
        )

    def reset(self) -> None:
        """Count from nought; requests under way finish on the old counts."""
        self._counts.clear()
        self._models.clear()
        self._calls.clear()

    def shown(self) -> dict[str, object]:
        """All counts, and how often each model was used."""
        return {
            "endpoints": {name: asdict(count) for name, count in sorted(self._counts.items())},
            "models": dict(sorted(self._models.items())),
        }

    def recent(self, endpoint: str | None) -> list[dict[str, object]]:
        """The last calls, oldest first."""
        return [asdict(call) for call in self._calls if endpoint is None or call.endpoint == endpoint]

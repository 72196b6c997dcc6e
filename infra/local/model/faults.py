"""The faults that a test switched on pass through here and go on to the door, one for each call that they hit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from infra.local.model.errors import wrong_value
from infra.local.model.fields import Fields

ENDPOINTS = (
    "embeddings",
    "chat",
    "models.list",
    "models.retrieve",
    "models.delete",
    "files.create",
    "files.list",
    "files.retrieve",
    "files.content",
    "files.delete",
    "jobs.create",
    "jobs.list",
    "jobs.retrieve",
    "jobs.cancel",
    "jobs.pause",
    "jobs.resume",
    "jobs.events",
    "jobs.checkpoints",
)
RUNNING = "jobs.run"
"""Not a request: the steps of jobs that are training."""

REFUSALS = ("400", "401", "403", "404", "429", "500", "503", "insufficient_quota", "loading")
"""Answered instead of doing the work."""
SILENCES = ("hang", "drop")
"""Nothing is done and nothing is answered."""
DAMAGES = ("cut", "malformed", "drop_reply", "hang_reply", "500_after")
"""The work is done, its reply is damaged."""
BY_ENDPOINT: Mapping[str, tuple[str, ...]] = {
    "embeddings": ("wrong_dimensions", "nan", "empty", "short", "shuffled"),
    "chat": ("slow_first_token", "no_finish_reason", "bad_json", "forged_citation"),
    "jobs.retrieve": ("odd_status",),
    "jobs.list": ("ignore_filter", "stale"),
}
STEPS = ("stuck", "fail")


@dataclass(slots=True)
class Fault:
    """One switched-on fault.

    Args:
        endpoint: an endpoint, a group of them (`files`, `jobs`, `models`) or `*`.
        kind: what happens.
        times: how many calls it hits; None for every one.
        after: how many calls it lets pass first.
        match: it hits only calls whose input contains this.
        retry_after: seconds that a 429 or 503 asks to wait; None sends no header.
        seconds: how long `slow_first_token` waits, or after how long `hang` and `hang_reply` hang up.
        message: the error's message in place of the usual one.
    """

    id: int
    endpoint: str
    kind: str
    times: int | None = None
    after: int = 0
    match: str | None = None
    retry_after: float | None = None
    seconds: float | None = None
    message: str | None = None
    used: int = 0

    def covers(self, endpoint: str) -> bool:
        """Whether calls at this endpoint can be hit; the steps of jobs are no calls, so no group covers them."""
        if endpoint == RUNNING:
            return self.endpoint == RUNNING
        return self.endpoint in {"*", endpoint} or endpoint.startswith(f"{self.endpoint}.")

    def spent(self) -> bool:
        """Whether it has hit as many calls as it should."""
        return self.times is not None and self.used >= self.times


def kinds_at(endpoint: str) -> tuple[str, ...]:
    """The faults that an endpoint, a group or `*` can show."""
    if endpoint == RUNNING:
        return STEPS
    return (*REFUSALS, *SILENCES, *DAMAGES, *BY_ENDPOINT.get(endpoint, ()))


class Faults:
    """The faults that are switched on, in the order in which they were."""

    def __init__(self) -> None:
        self._active: list[Fault] = []
        self._last = 0
        self._changed = asyncio.Event()

    def add(self, fields: Fields) -> Fault:
        """Switch one on.

        Raises:
            ApiError: the endpoint does not exist or cannot show this kind.
        """
        fields.only({"endpoint", "kind", "times", "after", "match", "retry_after", "seconds", "message"})
        groups = {name.split(".", 1)[0] for name in ENDPOINTS}
        endpoint = fields.choice("endpoint", {*ENDPOINTS, *groups, RUNNING, "*"})
        kind = fields.choice("kind", kinds_at(endpoint))
        waits = kind in {"429", "503", "loading"} and "retry_after" not in fields.values
        day = 86_400.0
        fault = Fault(
            id=self._last + 1,
            endpoint=endpoint,
            kind=kind,
            times=fields.whole("times", low=1, high=1_000_000) if fields.has("times") else None,
            after=fields.whole("after", 0, low=0, high=1_000_000),
            match=fields.text("match") if fields.has("match") else None,
            retry_after=fields.number("retry_after", low=0, high=day)
            if fields.has("retry_after")
            else 1.0
            if waits
            else None,
            seconds=fields.number("seconds", low=0, high=day) if fields.has("seconds") else None,
            message=fields.text("message") if fields.has("message") else None,
        )
        if fault.match == "":
            raise wrong_value("match", "expected a string that is not empty")
        self._last = fault.id
        self._active.append(fault)
        return fault

    def clear(self, endpoint: str | None = None) -> None:
        """Switch off all, or those of one endpoint or group."""
        self._active = [f for f in self._active if endpoint is not None and f.endpoint != endpoint]
        self._changed.set()
        self._changed = asyncio.Event()

    def shown(self) -> list[dict[str, object]]:
        """All of them, with how many calls each has hit; spent ones stay until they are cleared."""
        return [{**asdict(fault), "spent": fault.spent()} for fault in self._active]

    async def cleared(self, fault: Fault) -> None:
        """Wait until a fault has been switched off."""
        while any(f is fault for f in self._active):
            await self._changed.wait()

    def take(self, endpoint: str, text: Callable[[], str]) -> Fault | None:
        """The fault that this call has to show; counts the call.

        Args:
            endpoint: where the call came in.
            text: gives the call's input; asked only when a fault looks at it.
        """
        for fault in self._active:
            if fault.spent() or not fault.covers(endpoint):
                continue
            if fault.match is not None and fault.match not in text():
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.used += 1
            return fault
        return None

"""Replies pass through here when a test or a demonstration wants them as slow as a real model."""

from __future__ import annotations

from dataclasses import dataclass

from infra.local.model.faults import ENDPOINTS
from infra.local.model.fields import Fields

LONGEST = 600.0


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds before a reply, and between the tokens of a stream."""

    seconds: float = 0.0
    per_token: float = 0.0


class Latency:
    """The delay of each endpoint, none unless set."""

    def __init__(self) -> None:
        self._delays: dict[str, Delay] = {}

    def of(self, endpoint: str) -> Delay:
        """The delay of an endpoint."""
        return self._delays.get(endpoint, Delay())

    def put(self, fields: Fields) -> None:
        """Set the delay of one endpoint, or of all with `*`."""
        fields.only({"endpoint", "seconds", "per_token"})
        endpoint = fields.choice("endpoint", {*ENDPOINTS, "*"})
        delay = Delay(
            seconds=fields.number("seconds", 0.0, low=0, high=LONGEST),
            per_token=fields.number("per_token", 0.0, low=0, high=LONGEST),
        )
        for name in ENDPOINTS if endpoint == "*" else (endpoint,):
            self._delays[name] = delay

    def clear(self) -> None:
        """No delay anywhere."""
        self._delays.clear()

    def shown(self) -> dict[str, object]:
        """The delays that were set."""
        return {n: {"seconds": d.seconds, "per_token": d.per_token} for n, d in sorted(self._delays.items())}

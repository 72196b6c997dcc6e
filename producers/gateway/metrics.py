"""What the gateway counts, for Prometheus; no tenant, no id and no path is a label."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})


class GatewayMetrics:
    """Counters of one gateway, in a registry of its own: nothing is global."""

    def __init__(self) -> None:
        """Register the metrics."""
        self.registry = CollectorRegistry()
        self._places: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "penstock_gateway_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "penstock_gateway_request_seconds",
            "Time from request to the end of its answer.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._events = Counter(
            "penstock_gateway_events",
            "Events offered, by type and by what became of them.",
            ["type", "status"],
            registry=self.registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; unknown methods share a label."""
        shown = method if method in METHODS else "other"
        place = shown, route, status
        found = self._places.get(place)
        if found is None:
            # Looking a label up costs more than counting; there are as many as routes have methods and statuses.
            found = self._places[place] = (
                self._requests.labels(shown, route, str(status)),
                self._seconds.labels(route),
            )
        found[0].inc()
        found[1].observe(seconds)

    def events(self, offered: Mapping[tuple[str, str], int]) -> None:
        """Count offered events by type and by what became of them; a type is known, or there is none."""
        for (kind, status), number in offered.items():
            self._events.labels(kind, status).inc(number)

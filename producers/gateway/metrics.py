"""What the gateway counts, for Prometheus; no tenant, no id and no path is a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class GatewayMetrics:
    """Counters of one gateway, in a registry of its own: nothing is global."""

    def __init__(self) -> None:
        """Register the metrics."""
        self.registry = CollectorRegistry()
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
        shown = method if method in {"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"} else "other"
        self._requests.labels(shown, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def event(self, kind: str, status: str) -> None:
        """Count one offered event; its type is known, or it has none."""
        self._events.labels(kind, status).inc()

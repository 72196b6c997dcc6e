"""What a bridge counts, for Prometheus; no tenant, no stream and no id is a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class BridgeMetrics:
    """Counters of one bridge, in a registry of its own: nothing is global."""

    def __init__(self) -> None:
        """Register the metrics."""
        self.registry = CollectorRegistry()
        self._entries = Counter(
            "penstock_bridge_entries",
            "Stream entries by what became of them: accepted, duplicate or refused.",
            ["status"],
            registry=self.registry,
        )
        self._claimed = Counter(
            "penstock_bridge_claimed",
            "Entries taken over from a bridge that left them.",
            registry=self.registry,
        )
        self._stream_length = Gauge(
            "penstock_bridge_stream_length",
            "Entries in the stream after the last batch.",
            registry=self.registry,
        )

    def entry(self, status: str) -> None:
        """Count one entry."""
        self._entries.labels(status).inc()

    def claimed(self, count: int) -> None:
        """Count entries that were taken over."""
        self._claimed.inc(count)

    def length(self, entries: int) -> None:
        """Note how long the stream is."""
        self._stream_length.set(entries)

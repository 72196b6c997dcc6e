"""Events are published here, one or many, and followed to their end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penstock_client import wire
from penstock_client.errors import Refused
from penstock_client.events import SOURCE, event
from penstock_client.models import Erasure, EventStatus, PublishResult
from penstock_client.sync.transport import Transport


class Publishing(Transport):
    """Publishing, and what became of it."""

    def publish(
        self,
        kind: str,
        data: Mapping[str, Any],
        *,
        id: str | None = None,
        source: str = SOURCE,
        **attributes: Any,
    ) -> PublishResult:
        """Publish one event; see `penstock_client.event` for the arguments.

        Returns:
            What became of it: accepted, or a duplicate of the same one.

        Raises:
            BadRequest: names the field. Conflict: the id stands for other data.
        """
        made = event(kind, data, id=id, source=source, **attributes)
        return self._publish_alone(next(wire.batches([made]))[0])

    def publish_many(self, events: Iterable[Mapping[str, Any]]) -> list[PublishResult]:
        """Publish CloudEvents, in batches that the gateway takes.

        Returns:
            One result per event, in order; a refused one has its error, and the others are accepted.

        Raises:
            Unreachable, ServerError: the gateway stayed away. Sending the same events again is safe.
        """
        results: list[PublishResult] = []
        for group in wire.batches(events):
            if len(group) == 1 and len(group[0]) > wire.BATCH_BYTES:
                found = [self._publish_large(group[0])]
            else:
                found = self._send(b"[" + b",".join(group) + b"]", wire.BATCH)
            start = len(results)
            results += [one.model_copy(update={"index": start + one.index}) for one in found]
        return results

    def _publish_alone(self, body: bytes) -> PublishResult:
        return (self._send(body, wire.SINGLE))[0]

    def _publish_large(self, body: bytes) -> PublishResult:
        try:
            return self._publish_alone(body)
        except Refused as refused:
            shown = refused.problem.get("results")
            if not shown:
                raise
            return PublishResult.model_validate(shown[0])

    def _send(self, content: bytes, kind: str) -> list[PublishResult]:
        found = self.request("POST", wire.path("events"), content=content, headers={"content-type": kind})
        return [PublishResult.model_validate(one) for one in found["results"]]

    def event(self, event_id: str) -> EventStatus:
        """Where an event is, what happened to it, and what it led to."""
        return EventStatus.model_validate(self.request("GET", wire.path("events", event_id)))

    def find_event(self, source: str, id: str) -> EventStatus:
        """The same, by the name that its publisher gave it."""
        found = self.request("GET", wire.path("events"), params={"source": source, "id": id})
        return EventStatus.model_validate(found)

    def events(self, *, status: str | None = None, kind: str | None = None) -> Iterator[EventStatus]:
        """Events, newest first."""
        for item in self.pages(wire.path("events"), status=status, type=kind):
            yield EventStatus.model_validate(item)

    def wait_for(self, event_id: str, *, timeout: float = 60.0) -> EventStatus:
        """Look at an event until it has ended, or the time is over: see `ended`."""
        deadline, rest = time.monotonic() + timeout, 0.05
        while True:
            found = self.event(event_id)
            left = deadline - time.monotonic()
            if found.ended or left <= 0:
                return found
            time.sleep(min(rest, left))
            rest = min(1.0, rest * 1.5)

    def erase(self, kind: str, *, dry_run: bool = False, **names: str) -> Erasure:
        """Forget a document (collection, document_id), query (query_id), subject (subjectref) or your own tenant (tenant)."""
        body = {"kind": kind, "dry_run": dry_run, **names}
        return Erasure.model_validate(self.request("POST", wire.path("erasures"), body, longer=600.0))

"""Events are published here, one or many, and followed to their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from penstock_client import wire
from penstock_client.aio.transport import AsyncTransport
from penstock_client.errors import Refused
from penstock_client.events import SOURCE, event
from penstock_client.models import Erasure, EventStatus, PublishResult


class AsyncPublishing(AsyncTransport):
    """Publishing, and what became of it."""

    async def publish(
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
        return await self._publish_alone(next(wire.batches([made]))[0])

    async def publish_many(self, events: Iterable[Mapping[str, Any]]) -> list[PublishResult]:
        """Publish CloudEvents, in batches that the gateway takes.

        Returns:
            One result per event, in order; a refused one has its error, and the others are accepted.

        Raises:
            Unreachable, ServerError: the gateway stayed away. Sending the same events again is safe.
        """
        results: list[PublishResult] = []
        for group in wire.batches(events):
            if len(group) == 1 and len(group[0]) > wire.BATCH_BYTES:
                found = [await self._publish_large(group[0])]
            else:
                found = await self._send(b"[" + b",".join(group) + b"]", wire.BATCH)
            start = len(results)
            results += [one.model_copy(update={"index": start + one.index}) for one in found]
        return results

    async def _publish_alone(self, body: bytes) -> PublishResult:
        return (await self._send(body, wire.SINGLE))[0]

    async def _publish_large(self, body: bytes) -> PublishResult:
        try:
            return await self._publish_alone(body)
        except Refused as refused:
            shown = refused.problem.get("results")
            if not shown:
                raise
            return PublishResult.model_validate(shown[0])

    async def _send(self, content: bytes, kind: str) -> list[PublishResult]:
        found = await self.request(
            "POST", wire.path("events"), content=content, headers={"content-type": kind}
        )
        return [PublishResult.model_validate(one) for one in found["results"]]

    async def event(self, event_id: str) -> EventStatus:
        """Where an event is, what happened to it, and what it led to."""
        return EventStatus.model_validate(await self.request("GET", wire.path("events", event_id)))

    async def find_event(self, source: str, id: str) -> EventStatus:
        """The same, by the name that its publisher gave it."""
        found = await self.request("GET", wire.path("events"), params={"source": source, "id": id})
        return EventStatus.model_validate(found)

    async def events(
        self, *, status: str | None = None, kind: str | None = None
    ) -> AsyncIterator[EventStatus]:
        """Events, newest first."""
        async for item in self.pages(wire.path("events"), status=status, type=kind):
            yield EventStatus.model_validate(item)

    async def wait_for(self, event_id: str, *, timeout: float = 60.0) -> EventStatus:
        """Look at an event until it has ended, or the time is over: see `ended`."""
        deadline, rest = time.monotonic() + timeout, 0.05
        while True:
            found = await self.event(event_id)
            left = deadline - time.monotonic()
            if found.ended or left <= 0:
                return found
            await asyncio.sleep(min(rest, left))
            rest = min(1.0, rest * 1.5)

    async def erase(self, kind: str, *, dry_run: bool = False, **names: str) -> Erasure:
        """Forget a document (collection, document_id), query (query_id), subject (subjectref) or your own tenant (tenant)."""
        body = {"kind": kind, "dry_run": dry_run, **names}
        return Erasure.model_validate(await self.request("POST", wire.path("erasures"), body, longer=600.0))

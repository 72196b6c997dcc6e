"""Requests of the demo go to the HTTP API here, as any upstream system's would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx2

from schemas.errors import CallFailed

SOURCE = "penstock-demo"


class Gateway:
    """A client with one API key."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, key: str) -> AsyncIterator[Self]:
        """Connect; nothing of the environment, such as a proxy, is used."""
        headers = {"authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=90.0) as http:
            yield cls(http)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """One request; the reply's JSON.

        Raises:
            CallFailed: the gateway refused; says what its problem document says.
        """
        response = await self._http.request(method, path, json=body, headers=headers)
        if response.is_error:
            problem = response.json()
            raise CallFailed(
                f"{method} {path.split('?', maxsplit=1)[0]}: {response.status_code} {problem.get('detail') or problem.get('title')}"
            )
        return response.json() if response.content else None

    async def publish(self, kind: str, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """Publish events of one type in one batch; returns their ids in the ledger.

        Raises:
            CallFailed: one was refused.
        """
        batch = [
            {"specversion": "1.0", "id": str(uuid4()), "source": SOURCE, "type": kind, "data": dict(item)}
            for item in items
        ]
        headers = {"content-type": "application/cloudevents-batch+json"}
        reply = await self.call("POST", "/v1/events", batch, **headers)
        refused = [result for result in reply["results"] if result["status"] != "accepted"]
        if refused:
            raise CallFailed(f"{len(refused)} of {len(batch)} {kind} were refused: {refused[0]['error']}")
        return [result["event_id"] for result in reply["results"]]

    async def wait_for_event(self, event_id: str, *, within: float = 60.0) -> dict[str, Any]:
        """Wait until an event has ended.

        Raises:
            CallFailed: it died, or took too long.
        """
        deadline = asyncio.get_running_loop().time() + within
        while True:
            event: dict[str, Any] = await self.call("GET", f"/v1/events/{event_id}")
            if event["status"] == "done":
                return event
            if event["status"] == "dead" or asyncio.get_running_loop().time() > deadline:
                raise CallFailed(f"event {event_id} is {event['status']}: {event['error']}")
            await asyncio.sleep(0.1)

    async def put_document(self, collection: str, name: str, body: Mapping[str, Any]) -> str:
        """Replace one document; returns the event's id."""
        reply = await self.call(
            "PUT", f"/v1/collections/{collection}/documents/{quote(name, safe='')}", dict(body)
        )
        return str(reply["event_id"])

    async def delete_document(self, collection: str, name: str) -> str:
        """Delete one document; returns the event's id."""
        reply = await self.call("DELETE", f"/v1/collections/{collection}/documents/{quote(name, safe='')}")
        return str(reply["event_id"])

    async def ask(self, collection: str, question: str) -> dict[str, Any]:
        """Ask and wait for the answer.

        Raises:
            CallFailed: no answer in time.
        """
        reply: dict[str, Any] = await self.call(
            "POST", f"/v1/collections/{collection}/queries", {"question": question}, prefer="wait=60"
        )
        if reply.get("status") not in {"answered", "abstained"}:
            raise CallFailed(f"no answer to {question!r}: {reply.get('status')}")
        return reply

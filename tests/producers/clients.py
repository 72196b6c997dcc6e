"""A key and a socket become calls to a gateway; events for tests come from here too."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
from typer.testing import Result

STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
ALL = ("publish", "query", "feedback", "train", "admin", "ops")


@dataclass(frozen=True, slots=True)
class Client:
    """One tenant's key at the gateway."""

    http: httpx2.AsyncClient
    tenant: str
    key: str

    async def call(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Send a request with the key on it."""
        headers = {"authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **more)

    async def publish(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Publish a batch and return the results."""
        answer = await self.call(
            "POST",
            "/v1/events",
            json=list(events),
            headers=BATCH,
        )
        assert answer.status_code == 202, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results


Run = Callable[..., Awaitable[Result]]
"""Runs a command as a user: arguments, and perhaps `stdin`."""


def printed(result: Result) -> Any:
    """What `--json` printed; the gateway in this process logs to the same standard output, before it and after it."""
    lines = [line for line in result.stdout.splitlines() if line.startswith(("{", "["))]
    return json.loads(lines[-1])


def report(result: Result) -> dict[str, Any]:
    """The object that `--json` printed."""
    found: dict[str, Any] = printed(result)
    return found


NewClient = Callable[..., Awaitable[Client]]


def cloud_event(kind: str, data: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    """A CloudEvent as an upstream would write it."""
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "https://upstream.example",
        "type": kind,
        "data": data,
        **attributes,
    }


def example_event(text: str = "Name a river.", **attributes: Any) -> dict[str, Any]:
    """A valid `example.recorded`."""
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "The Rhône."}]
    return cloud_event("example.recorded", {"dataset": "rivers", "messages": messages}, **attributes)


def document_event(document_id: str = "a", **attributes: Any) -> dict[str, Any]:
    """A valid `document.added`."""
    data = {"collection": "books", "document_id": document_id, "content": "Water flows downhill."}
    return cloud_event("document.added", data, **attributes)

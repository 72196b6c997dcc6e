"""P1 and P2 at the front door: the gateway is killed -9 while batches come in, and what got its 202 is done, once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.stories.town import Town

SENDERS = 4
KIND = {"content-type": "application/cloudevents-batch+json"}


@dataclass
class Load:
    """Batches on their way in, and what was promised of them."""

    client: httpx2.AsyncClient
    url: str
    batches: list[list[dict[str, Any]]]
    promised: dict[str, str] = field(default_factory=dict)
    marks: dict[int, asyncio.Event] = field(default_factory=dict)
    answered: int = 0
    interrupted: int = 0

    async def send(self) -> None:
        """Send until nothing is left; a batch without an answer is sent again, as an upstream would."""
        while self.batches:
            batch = self.batches.pop()
            while not await self._try(batch):
                self.interrupted += 1
                await asyncio.sleep(0.1)
            self.answered += 1
            if self.answered in self.marks:
                self.marks[self.answered].set()

    async def _try(self, batch: list[dict[str, Any]]) -> bool:
        try:
            answer = await self.client.post(f"{self.url}/v1/events", json=batch, headers=KIND)
        except httpx2.TransportError:
            return False
        if answer.status_code == 503:
            return False
        assert answer.status_code == 202, answer.text
        for one in answer.json()["results"]:
            assert one["status"] in {"accepted", "duplicate"}, one
            self.promised[one["id"]] = one["event_id"]
        return True


def example(number: int) -> dict[str, Any]:
    """An event of its own, cheap to process."""
    messages = [
        {"role": "user", "content": f"Where does river number {number} rise?"},
        {"role": "assistant", "content": f"At spring number {number}."},
    ]
    return {
        "specversion": "1.0",
        "id": uuid4().hex,
        "source": "https://upstream.example",
        "type": "example.recorded",
        "data": {"dataset": "rivers", "messages": messages},
    }


@pytest.mark.parametrize(
    ("count", "size", "kills", "within"),
    [(750, 50, 1, 90.0), pytest.param(50_000, 100, 10, 1500.0, marks=pytest.mark.chaos)],
)
@pytest.mark.timeout(1800)
async def test_what_was_promised_is_done_once(
    town: Town, count: int, size: int, kills: int, within: float
) -> None:
    """Killed again and again under a batch load: every event with a 202 is in the ledger and processed, none twice."""
    # A line per event would be half of the work; and as many examples as this would be trained on.
    town.environment["PENSTOCK_LOG_LEVEL"] = "info"
    url = await town.gateway()
    client = await town.tenant("acme")
    never = await client.put("/v1/datasets/rivers", json={"threshold": 1_000_000})
    assert never.status_code == 200, never.text
    await town.workers("train", concurrency=64)
    events = [example(number) for number in range(count)]
    batches = [events[start : start + size] for start in range(0, count, size)]
    marks = {len(batches) * number // (kills + 1): asyncio.Event() for number in range(1, kills + 1)}
    load = Load(client, url, batches, marks=marks)
    senders = asyncio.gather(*(load.send() for _ in range(SENDERS)))
    for mark in marks.values():
        # Killed the moment that so many batches are answered, with others on their way.
        async with asyncio.timeout(within):
            await mark.wait()
        await town.kill("gateway")
        await town.start("gateway", "gateway")
    async with asyncio.timeout(within):
        await senders
    assert count == len(load.promised)
    assert load.interrupted > 0
    await town.settled("acme", within=within)
    rows = await town.rows("SELECT id, event_id::text, status FROM events WHERE source LIKE 'https:%'")
    assert {"done"} == {row["status"] for row in rows}
    assert load.promised == {row["id"]: row["event_id"] for row in rows}
    assert count == len(rows) == await town.value("SELECT count(*) FROM examples")

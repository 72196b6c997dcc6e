from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cli.client_http import Api, GatewayRefused
from cli.client_upload import BATCH_BYTES, BATCH_ITEMS, Load, batches, upload
from infra.database import Database
from producers.files import Bad, Item, document_id, document_of, event_of, find_files, read_lines
from producers.gateway.server import Serving
from schemas.errors import Unavailable
from tests.producers.clients import Client, example_event


class Wire(httpx2.HTTPTransport):
    """A real connection that loses some answers after the gateway has given them, or refuses before."""

    def __init__(self, *, lose: int = 0, refuse: int = 0) -> None:
        super().__init__()
        self.lose, self.refuse = lose, refuse

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request, or do not."""
        if self.refuse:
            self.refuse -= 1
            return httpx2.Response(503, json={"detail": "later"})
        answer = super().handle_request(request)
        if self.lose:
            self.lose -= 1
            answer.close()
            raise httpx2.ReadError("the answer was lost")
        return answer


def items(count: int) -> Iterator[Item]:
    """Events with ids of their content."""
    for number in range(count):
        event = example_event(f"River {number}?", id=f"river-{number}")
        yield Item(str(number), event)


async def load(gateway: Serving, client: Client, wire: Wire, count: int) -> Load:
    """Upload through a wire; without waiting between attempts."""

    def act() -> Load:
        done = Load()
        headers = {"authorization": f"Bearer {client.key}"}
        with httpx2.Client(base_url=gateway.url, headers=headers, transport=wire, timeout=30) as http:
            upload(Api(http), items(count), done, sleep=lambda _: None)
        return done

    return await asyncio.to_thread(act)


async def test_a_lost_answer_loses_and_doubles_nothing(
    gateway: Serving, client: Client, owner_database: Database
) -> None:
    """What the gateway had accepted before the answer was lost is a duplicate the second time."""
    done = await load(gateway, client, Wire(lose=1), 450)
    assert (len(done.accepted), len(done.duplicates), done.refused) == (450 - BATCH_ITEMS, BATCH_ITEMS, [])
    async with owner_database.connection() as connection:
        assert (
            await connection.fetchval("SELECT count(*) FROM events WHERE tenant_id = $1", client.tenant)
            == 450
        )


async def test_a_gateway_that_says_later_is_asked_later(gateway: Serving, client: Client) -> None:
    """503 is waited out; a gateway that stays away ends the load with an error, and the next run goes on."""
    done = await load(gateway, client, Wire(refuse=3), 10)
    assert len(done.accepted) == 10
    with pytest.raises(GatewayRefused):
        await load(gateway, client, Wire(refuse=100), 10)
    with pytest.raises(Unavailable):
        await load(gateway, client, Wire(lose=100), 20)
    again = await load(gateway, client, Wire(), 20)
    assert (len(again.accepted), len(again.duplicates)) == (0, 20)


def test_groups_stay_within_what_the_gateway_takes() -> None:
    """By number and by size; what is larger than a group goes alone."""
    sizes = [10, BATCH_BYTES + 10, 10, BATCH_BYTES // 2, BATCH_BYTES // 2, *[1] * (BATCH_ITEMS + 1)]
    made = [Item(str(n), {"x": "x" * size}) for n, size in enumerate(sizes)]
    groups = [len(group) for group in batches(made, Load(), lambda _: None)]
    assert groups == [1, 1, 2, BATCH_ITEMS, 2]
    for group in batches(made, Load(), lambda _: None):
        assert len(group) == 1 or sum(len(body) for _, body in group) <= BATCH_BYTES


def test_files_are_found_in_order_without_hidden_ones(tmp_path: Path) -> None:
    """A folder is walked; what begins with a dot, and links that lead out, are left out."""
    root, outside = tmp_path / "in", tmp_path / "secret.txt"
    (root / ".git").mkdir(parents=True)
    (root / "b").mkdir()
    for name in ("z.txt", "b/a.txt", ".git/config", ".env"):
        (root / name).write_text("x")
    outside.write_text("secret")
    (root / "link.txt").symlink_to(outside)
    found = [path if isinstance(path, Bad) else document_id(path, root) for path in find_files([root])]
    assert found == ["b/a.txt", "z.txt"]
    assert document_id(outside, root) == "secret.txt"


def test_ids_follow_content(tmp_path: Path) -> None:
    """The same file has the same event id; another text, place or metadata another."""
    file = tmp_path / "a.md"

    def name(text: str, collection: str = "c", metadata: dict[str, str] | None = None) -> str:
        file.write_text(text)
        made = document_of(file, collection, tmp_path, metadata)
        assert isinstance(made, Item)
        return str(made.event["id"])

    assert name("x") == name("x")
    assert len({name("x"), name("y"), name("x", "d"), name("x", metadata={"lang": "en"})}) == 4
    assert event_of("w", {"type": "t"}).event["id"] == event_of("v", {"type": "t"}).event["id"]


def test_lines_that_are_no_objects_are_told_by_number() -> None:
    """Blank lines are skipped, bad ones named, and a line without end does not fill the memory."""
    stream = io.BytesIO(b'{"a": 1}\n\nnope\n[1]\n' + b"x" * (17 * 1024 * 1024) + b'\n{"b": 2}')
    found = [(one.label, one.error.field) if isinstance(one, Bad) else one for one in read_lines(stream, "f")]
    assert found == [("f:1", {"a": 1}), ("f:3", "line"), ("f:4", "line"), ("f:5", "line"), ("f:6", {"b": 2})]

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from infra.database import Database
from penstock_client import AsyncClient, ServerError, Unreachable, event, wire
from producers.gateway.server import Serving
from tests.drive import Drive


class Wire(httpx2.AsyncHTTPTransport):
    """A real connection that loses answers after the gateway has given them, refuses before, or cuts streams."""

    def __init__(self, *, lose: int = 0, refuse: int = 0, cut: int = 0) -> None:
        super().__init__()
        self.lose, self.refuse, self.cut = lose, refuse, cut

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request, or do not."""
        if self.refuse:
            self.refuse -= 1
            return httpx2.Response(
                503, json={"detail": "later", "code": "unavailable"}, headers={"retry-after": "0"}
            )
        answer = await super().handle_async_request(request)
        if self.lose:
            self.lose -= 1
            await answer.aclose()
            raise httpx2.ReadError("the answer was lost")
        if self.cut and answer.headers.get("content-type", "").startswith("text/event-stream"):
            self.cut -= 1
            assert isinstance(answer.stream, httpx2.AsyncByteStream)
            answer.stream = Cut(answer.stream)
        return answer


class Cut(httpx2.AsyncByteStream):
    """A stream that breaks after its first events."""

    def __init__(self, whole: httpx2.AsyncByteStream) -> None:
        self._whole = whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The first two events, or all of it if there are not so many."""
        seen = b""
        async for part in self._whole:
            seen += part
            yield part
            if seen.count(b"event:") >= 2:
                raise httpx2.ReadError("the stream was cut")

    async def aclose(self) -> None:
        """Close what is behind."""
        await self._whole.aclose()


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(wire, "FIRST_PAUSE", 0.0)


@pytest.mark.usefixtures("_no_pause")
async def test_a_lost_answer_doubles_nothing(
    gateway: Serving, key: str, tenant: str, owner_database: Database
) -> None:
    """Events by their ids, everything else by its Idempotency-Key."""
    async with AsyncClient(gateway.url, key, transport=Wire(lose=3)) as penstock:
        [result] = await penstock.publish_many(
            [event("document.deleted", {"collection": "c", "document_id": "d"})]
        )
        assert "duplicate" == result.status
    for lost in (1, 2):
        async with AsyncClient(gateway.url, key, transport=Wire(lose=lost)) as penstock:
            await penstock.put_document("docs", f"d{lost}", "Water.")
            made = await penstock.add_webhook("http://127.0.0.1:9/hook")
            assert made.secret
    async with owner_database.connection() as connection:
        count = "SELECT count(*) FROM {} WHERE tenant_id = $1"
        assert 3 == await connection.fetchval(count.format("events"), tenant)
        assert 2 == await connection.fetchval(count.format("webhook_endpoints"), tenant)


@pytest.mark.usefixtures("_no_pause")
async def test_a_gateway_that_is_away_is_an_exception_after_all_tries(gateway: Serving, key: str) -> None:
    """503 is waited out; one that stays is `ServerError`, silence is `Unreachable`."""
    async with AsyncClient(gateway.url, key, transport=Wire(refuse=3)) as penstock:
        assert [] == [one async for one in penstock.collections()]
    async with AsyncClient(gateway.url, key, attempts=2, transport=Wire(refuse=9)) as penstock:
        with pytest.raises(ServerError) as caught:
            await penstock.collection("docs")
        assert (503, "later") == (caught.value.status, caught.value.detail)
    async with AsyncClient("http://127.0.0.1:1", key, attempts=2) as penstock:
        with pytest.raises(Unreachable):
            await penstock.collection("docs")
        with pytest.raises(Unreachable):
            _ = [said async for said in penstock.follow("01890000-0000-7000-8000-000000000000")]


@pytest.mark.usefixtures("_no_pause")
async def test_a_cut_stream_goes_on_where_it_was(
    gateway: Serving, key: str, wheels: Drive, tenant: str
) -> None:
    """However often it is cut, no event is missing and none comes twice."""
    async with AsyncClient(gateway.url, key) as penstock:
        await penstock.put_document("docs", "a", "The warranty of the Aurora lasts five years.")
        await wheels.settle(tenant)
        query_id = await penstock.submit("docs", "How long is the warranty of the Aurora?", stream=True)
        await wheels.settle(tenant)
        whole = [said.id async for said in penstock.follow(query_id)]
    async with AsyncClient(gateway.url, key, transport=Wire(cut=3)) as penstock:
        pieces = [said.id async for said in penstock.follow(query_id)]
    assert len(whole) > 4
    assert whole == pieces


@pytest.mark.parametrize(
    ("attempt", "status", "retry_after", "again"),
    [
        (1, None, None, True),
        (1, 503, None, True),
        (1, 429, 7.0, True),
        (1, 429, 3600.0, False),
        (1, 500, None, False),
        (1, 400, None, False),
        (4, 503, None, False),
        (4, None, None, False),
    ],
)
def test_what_is_tried_again(
    attempt: int, status: int | None, retry_after: float | None, again: bool
) -> None:
    """Silence and what passes by itself; not for ever, and not after an hour."""
    pause = wire.pause(attempt, 4, status, retry_after)
    assert again == (pause is not None)
    if retry_after is not None and again:
        assert retry_after == pause


def test_ids_may_hold_any_character() -> None:
    """Every part of a path is encoded, dots too where they would lead elsewhere."""
    assert "/v1/collections/c/documents/a%2Fb%20%C3%A9" == wire.path("collections", "c", "documents", "a/b é")
    assert "/v1/collections/%2E%2E" == wire.path("collections", "..")

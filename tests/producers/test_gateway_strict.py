from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from producers.gateway.server import Serving
from tests.producers.clients import BATCH, STRUCTURED, Client, NewClient, document_event, example_event

GOOD = json.dumps(example_event(id="strict"))
MIB = 1024 * 1024


def body_of_depth(depth: int) -> str:
    """A document whose metadata nests so deep that the whole event has `depth` levels."""
    inner = "[" * (depth - 3) + "]" * (depth - 3)
    event = document_event("deep")
    event["data"]["metadata"] = {"x": "DEEP"}
    return json.dumps(event).replace('"DEEP"', inner)


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"", 400, "bad_input", "body"),
        (b"{", 400, "bad_input", "body"),
        (b"[]", 400, "bad_input", "event"),
        (b"null", 400, "bad_input", "event"),
        (b"\xff\xfe{}", 400, "bad_input", "body"),
        (b"\xef\xbb\xbf" + GOOD.encode(), 400, "bad_input", "body"),
        (GOOD.encode("utf-16"), 400, "bad_input", "body"),
        (GOOD.replace("Name", "N\\u0000me").encode(), 400, "bad_input", "data.messages"),
        (GOOD.replace("Name", "N\\ud800me").encode(), 400, "bad_input", "data.messages"),
        (GOOD.replace('"id":', '"id": "other", "id":').encode(), 400, "bad_input", "body"),
        (GOOD.replace('"role"', '"role": "user", "role"', 1).encode(), 400, "bad_input", "body"),
        (GOOD.replace('"1.0"', "NaN").encode(), 400, "bad_input", "body"),
        (GOOD.replace('"1.0"', "-Infinity").encode(), 400, "bad_input", "body"),
        (GOOD.replace('"1.0"', "1" * 5000).encode(), 400, "bad_input", "body"),
        (GOOD.replace('"1.0"', "1.0").encode(), 400, "bad_input", "specversion"),
        (GOOD.replace("example.recorded", "example.recorde").encode(), 400, "unknown_type", "type"),
        (GOOD.replace("example.recorded", "query.answered").encode(), 400, "unknown_type", "type"),
        (GOOD.replace("example.recorded", "delivery.due").encode(), 400, "unknown_type", "type"),
        (body_of_depth(65).encode(), 400, "bad_input", "body"),
        (b"[" * 100_000, 400, "bad_input", "body"),
    ],
)
async def test_what_is_not_a_good_event_is_refused_by_name(
    client: Client, body: bytes, status: int, code: str, field: str
) -> None:
    """Malformed events get a problem document that names the field; nothing of them is entered or echoed."""
    answer = await client.call("POST", "/v1/events", content=body, headers=STRUCTURED)
    shown = answer.json()
    assert (answer.status_code, shown["code"]) == (status, code)
    assert str(shown["field"]).startswith(field)
    assert_problem(answer)
    listed = await client.call("GET", "/v1/events")
    assert listed.json()["items"] == []


async def test_sixty_four_levels_are_allowed(client: Client) -> None:
    """The limit on depth is a limit and not a habit of one parser."""
    answer = await client.call("POST", "/v1/events", content=body_of_depth(64), headers=STRUCTURED)
    assert answer.status_code == 202, answer.text


def assert_problem(answer: httpx2.Response) -> None:
    """The answer is an RFC 9457 document with the members that clients rely on."""
    assert answer.headers["content-type"] == "application/problem+json"
    shown = answer.json()
    assert shown["status"] == answer.status_code
    assert all(isinstance(shown[name], str) and shown[name] for name in ("type", "title", "detail", "code"))
    assert shown["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("GET", "/v1/events/not-a-uuid", {}, 404, "not_found"),
        ("DELETE", "/v1/events", {}, 405, "method_not_allowed"),
        ("POST", "/healthz", {}, 405, "method_not_allowed"),
        (
            "POST",
            "/v1/events",
            {"content": b"{}", "headers": {"content-type": "text/plain"}},
            400,
            "bad_input",
        ),
        ("PUT", "/v1/collections/b/documents/x", {"content": b"x=1"}, 415, "unsupported_media_type"),
        (
            "PUT",
            "/v1/collections/b/documents/x",
            {"content": b"{}", "headers": {"content-type": "application/json; charset=latin-1"}},
            415,
            "unsupported_media_type",
        ),
        (
            "POST",
            "/v1/events",
            {"content": b"{}", "headers": {**STRUCTURED, "content-encoding": "gzip"}},
            415,
            "unsupported_media_type",
        ),
        (
            "POST",
            "/v1/events",
            {"content": b"<a/>", "headers": {"content-type": "application/cloudevents+xml"}},
            415,
            "unsupported_media_type",
        ),
        ("GET", "/v1/events?status=asleep", {}, 422, "invalid_parameter"),
        ("GET", "/v1/collections/b/documents/%ff", {}, 400, "bad_input"),
        ("GET", "/v1/collections/b/documents/%00", {}, 400, "bad_input"),
        ("PUT", "/v1/collections/UPPER/documents/x", {"json": {"content": "x"}}, 400, "bad_input"),
        ("PUT", "/v1/collections/b/documents/" + "x" * 513, {"json": {"content": "x"}}, 400, "bad_input"),
        ("PUT", "/v1/collections/b/documents/x", {"json": {}}, 400, "bad_input"),
        (
            "PUT",
            "/v1/collections/b/documents/x",
            {"json": {"content": "x", "uri": "http://a"}},
            400,
            "bad_input",
        ),
        ("PUT", "/v1/collections/b/documents/x", {"json": {"content": 7}}, 400, "bad_input"),
        ("PUT", "/v1/collections/b/documents/x", {"json": {"text": "x"}}, 400, "bad_input"),
        ("PUT", "/v1/collections/b/documents/x", {"json": ["x"]}, 400, "bad_input"),
    ],
)
async def test_every_error_is_a_problem(
    client: Client, method: str, path: str, more: dict[str, Any], status: int, code: str
) -> None:
    """Whatever goes wrong, wherever: the answer is a problem document with the right status."""
    answer = await client.call(method, path, **more)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert_problem(answer)


async def test_sizes_have_limits(client: Client) -> None:
    """1 MiB for an event, 50 MiB for a document, 1,000 events or 16 MiB for a batch; beyond is a 413 that arrives."""
    long = example_event("x" * MIB)
    batch = [example_event(str(number)) for number in range(1001)]
    document = {"content": "x" * (50 * MIB)}
    for path, method, more in (
        ("/v1/events", "POST", {"json": long, "headers": STRUCTURED}),
        ("/v1/events", "POST", {"json": batch, "headers": BATCH}),
        ("/v1/events", "POST", {"content": b"[" + b" " * (16 * MIB) + b"]", "headers": BATCH}),
        ("/v1/collections/b/documents/x", "PUT", {"json": document}),
    ):
        answer = await client.call(method, path, **more)
        assert (path, answer.status_code, answer.json()["code"]) == (path, 413, "too_large")
        assert_problem(answer)


async def test_a_body_without_announced_length_is_limited_too(client: Client) -> None:
    """Chunked bodies are counted while they come in."""

    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * MIB

    answer = await client.call("POST", "/v1/events", content=chunks(), headers=BATCH)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_large_document_comes_in_whole(client: Client) -> None:
    """A document of one line of 10 MB is accepted, under its address and as an event."""
    line = "water " * (10 * MIB // 6)
    put = await client.call("PUT", "/v1/collections/books/documents/long", json={"content": line})
    event = document_event("long too")
    event["data"]["content"] = line
    posted = await client.call("POST", "/v1/events", json=event, headers=STRUCTURED)
    assert [put.status_code, posted.status_code] == [202, 202]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nhost: a\r\nbroken header\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nhost: a\n\n",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n",
    ],
)
async def test_bytes_that_are_not_http_get_a_problem_too(gateway: Serving, raw: bytes) -> None:
    """Even a request that cannot be parsed, or could be read in two ways, is answered in the same form."""
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    writer.write(raw)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert b"400 Bad Request" in answer
    assert b"application/problem+json" in answer


async def test_a_head_that_does_not_end_is_not_kept(gateway: Serving) -> None:
    """Nobody can fill the gateway's memory with one header."""
    _, writer = await asyncio.open_connection(gateway.host, gateway.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")

    async def flood() -> None:
        for _ in range(10_000):
            writer.write(b"y" * 65_536)
            await writer.drain()

    with pytest.raises((ConnectionError, BrokenPipeError)):
        await flood()
    writer.close()


async def test_the_request_id_goes_in_and_out(client: Client) -> None:
    """A harmless request id of the caller's is used; another is replaced. Answers carry the security headers."""
    given = await client.call("GET", "/healthz", headers={"x-request-id": "abc-1.2_3"})
    assert given.headers["x-request-id"] == "abc-1.2_3"
    replaced = await client.call("GET", "/healthz", headers={"x-request-id": "a b"})
    assert replaced.headers["x-request-id"] not in {"", "a b"}
    assert given.headers["x-content-type-options"] == "nosniff"
    assert given.headers["cache-control"] == "no-store"
    assert "server" not in given.headers


async def test_health_says_only_ok(http: httpx2.AsyncClient) -> None:
    """The public health check needs no key and tells nothing."""
    answer = await http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer psk_wrong", "Basic cDpw", "Bearer sk-other"])
async def test_without_a_valid_key_nothing_is_told(http: httpx2.AsyncClient, key: str) -> None:
    """A missing, malformed or unknown key is a 401 that says how to authenticate."""
    answer = await http.get("/v1/events", headers={"authorization": key} if key else {})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert_problem(answer)


async def test_scopes_bound_what_a_key_may_do(new_client: NewClient) -> None:
    """A key publishes, asks and administers only by its scopes; in a batch each item is judged by its own type."""
    asker = await new_client(["query"])
    put = await asker.call("PUT", "/v1/collections/b/documents/x", json={"content": "x"})
    hooks = await asker.call("GET", "/v1/webhooks")
    assert [put.status_code, hooks.status_code] == [403, 403]
    assert put.json()["code"] == "forbidden"
    [example] = await asker.publish(example_event())
    assert (example["status"], example["error"]["code"]) == ("rejected", "forbidden")
    single = await asker.call("POST", "/v1/events", json=example_event(), headers=STRUCTURED)
    assert single.status_code == 403
    trainer = await new_client(["train"])
    assert [one["status"] for one in await trainer.publish(example_event(), document_event())] == [
        "accepted",
        "rejected",
    ]
    watcher = await new_client(["ops"])
    assert (await watcher.call("GET", "/v1/events")).status_code == 200
    assert (await watcher.call("GET", "/v1/collections/b/documents")).status_code == 403

from __future__ import annotations

from typing import Any

import h11
import httpx2
import pytest
from starlette.requests import Request

from infra.database import Database
from producers.gateway.modes import read_sent
from tests.producers.clients import Client, example_event

BINARY = """POST /someresource HTTP/1.1
Host: example.com
ce-specversion: 1.0
ce-type: com.example.someevent
ce-time: 2018-04-05T03:56:24Z
ce-id: 1234-1234-1234
ce-source: /mycontext/subcontext
Content-Type: {kind}
Content-Length: 33

{{
    "message": "Hello World!"
}}
"""
STRUCTURED = """POST /someresource HTTP/1.1
Host: example.com
Content-Type: {kind}
Content-Length: 266

{{
    "specversion": "1.0",
    "type": "com.example.someevent",
    "time": "2018-04-05T03:56:24Z",
    "id": "1234-1234-1234",
    "source": "/mycontext/subcontext",
    "datacontenttype": "application/json",
    "data": {{
        "message": "Hello World!"
    }}
}}
"""
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def parsed(text: str) -> Request:
    """An HTTP request as bytes on a socket, read by an HTTP parser that is not ours."""
    head, body = text.split("\n\n", 1)
    wire = h11.Connection(h11.SERVER)
    raw = body.rstrip("\n").encode()
    lines = [
        f"Content-Length: {len(raw)}" if line.startswith("Content-Length") else line
        for line in head.split("\n")
    ]
    wire.receive_data("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
    request, data = wire.next_event(), wire.next_event()
    assert isinstance(request, h11.Request)
    assert isinstance(data, h11.Data)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": bytes(data.data), "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": list(request.headers)}
    return Request(scope, receive)


@pytest.mark.parametrize(
    ("text", "kind", "content_type"),
    [
        (BINARY, "application/json", "application/json"),
        (BINARY, "application/json; charset=utf-8", "application/json; charset=utf-8"),
        (STRUCTURED, "application/cloudevents+json", "application/json"),
        (STRUCTURED, "application/cloudevents+json; charset=utf-8", "application/json"),
    ],
)
async def test_the_official_scenarios(text: str, kind: str, content_type: str) -> None:
    """The four scenarios of cloudevents/conformance, features/http-protocol-binding: attributes and data as told."""
    sent = await read_sent(parsed(text.format(kind=kind)))
    assert not sent.batch
    assert [
        {
            "id": "1234-1234-1234",
            "specversion": "1.0",
            "type": "com.example.someevent",
            "source": "/mycontext/subcontext",
            "time": "2018-04-05T03:56:24Z",
            "datacontenttype": content_type,
            "data": {"message": "Hello World!"},
        }
    ] == sent.raw


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
async def test_the_same_over_the_socket(client: Client, kind: str) -> None:
    """A binary event of a type that is known here comes in whatever parameters its content type has."""
    headers = {
        "ce-specversion": "1.0",
        "ce-type": "example.recorded",
        "ce-time": "2018-04-05T03:56:24Z",
        "ce-id": "1234-1234-1234",
        "ce-source": "/mycontext/subcontext",
        "content-type": kind,
    }
    answer = await client.call("POST", "/v1/events", json=example_event()["data"], headers=headers)
    assert (202, "accepted") == (answer.status_code, answer.json()["results"][0]["status"])


async def test_a_request_has_an_id_and_a_trace(
    client: Client, http: httpx2.AsyncClient, owner_database: Database
) -> None:
    """The caller's request id comes back; its trace is kept with every event that has none, and goes on from there."""
    headers = {"traceparent": TRACE, "x-request-id": "mine-1"}
    own = TRACE.replace("4bf9", "0000")
    batch = [example_event("a"), example_event("b", traceparent=own)]
    many = {**headers, "content-type": "application/cloudevents-batch+json"}
    answers = [
        await client.call("PUT", "/v1/collections/c/documents/d", json={"content": "x"}, headers=headers),
        await client.call("POST", "/v1/events", json=batch, headers=many),
        await client.call(
            "PUT", "/v1/collections/c/documents/e", json={"content": "x"}, headers={"traceparent": "no trace"}
        ),
    ]
    assert ["mine-1", "mine-1"] == [answer.headers["x-request-id"] for answer in answers[:2]]
    assert answers[2].headers["x-request-id"] not in {"", "mine-1"}
    async with owner_database.connection() as connection:
        rows = await connection.fetch(
            "SELECT attributes ->> 'traceparent' AS trace FROM events WHERE tenant_id = $1 ORDER BY event_id",
            client.tenant,
        )
    assert [TRACE, TRACE, own, None] == [row["trace"] for row in rows]
    refused = await http.get("/v1/events", headers={"x-request-id": "mine-2"})
    assert (401, "mine-2") == (refused.status_code, refused.json()["request_id"])
    bad = await http.get("/v1/events", headers={"x-request-id": "no\tid"})
    assert bad.headers["x-request-id"] == bad.json()["request_id"] != "no\tid"


async def test_every_answer_carries_the_security_headers(client: Client, http: httpx2.AsyncClient) -> None:
    """Whether it is an answer or a refusal: no sniffing, no framing, no referrer, no store."""
    wanted = {
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    for answer in (
        await client.call("GET", "/v1/events"),
        await client.call("POST", "/v1/events", content=b"{", headers={"content-type": "text/plain"}),
        await http.get("/v1/events"),
        await http.get("/nowhere"),
        await http.get("/healthz"),
    ):
        assert wanted == {name: answer.headers.get(name) for name in wanted}

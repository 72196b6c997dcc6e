from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from infra.database import Database
from tests.producers.clients import Client, example_event

DATA = example_event()["data"]
HEADERS = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "https://upstream.example",
    "ce-type": "example.recorded",
    "content-type": "application/json",
}


async def post(
    client: Client, headers: list[tuple[str | bytes, str | bytes]] | dict[str, str], body: Any = DATA
) -> httpx2.Response:
    """A request whose headers are sent as they are."""
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    sent = [(_raw(name), _raw(value)) for name, value in pairs]
    key = (b"authorization", f"Bearer {client.key}".encode())
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.http.request("POST", "/v1/events", content=content, headers=[*sent, key])


def _raw(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("plain", "plain"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("euro%e2%82%ac", "euro€"),
        ("100%25", "100%"),
        ('"quoted \\"value\\""', 'quoted "value"'),
        ("a%2Fb", "a/b"),
    ],
)
async def test_binary_attributes_are_decoded_once(
    client: Client, owner_database: Database, sent: str, kept: str
) -> None:
    """Headers are unquoted and percent-decoded once, known attributes and extensions alike."""
    answer = await post(client, {**HEADERS, "ce-subject": sent, "ce-myextension": sent})
    assert answer.status_code == 202, answer.text
    async with owner_database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT subject, attributes, data FROM events WHERE event_id = $1::uuid",
            answer.json()["results"][0]["event_id"],
        )
    assert row is not None
    assert (row["subject"], row["attributes"]["myextension"], row["data"]) == (kept, kept, DATA)


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"ce-id": None}, 400, "id"),
        ({"ce-specversion": "0.3"}, 400, "specversion"),
        ({"ce-subject": "%FF"}, 400, "ce-subject"),
        ({"ce-subject": "50%"}, 400, "ce-subject"),
        ({"ce-subject": "Rh\xf4ne"}, 400, "ce-subject"),
        ({"ce-my-extension": "x"}, 400, "my-extension"),
        ({"ce-data": "x"}, 400, "ce-data"),
        ({"ce-datacontenttype": "application/json"}, 400, "ce-datacontenttype"),
        ({"content-type": "text/plain"}, 415, "Content-Type"),
        ({"ce-sequence": "-1"}, 400, "sequence"),
        ({"ce-time": "yesterday"}, 400, "time"),
    ],
)
async def test_bad_binary_events_name_their_header(
    client: Client, change: dict[str, str | None], status: int, field: str
) -> None:
    """What a header gets wrong is refused by its name."""
    headers = {name: value for name, value in {**HEADERS, **change}.items() if value is not None}
    answer = await post(client, headers)
    assert (answer.status_code, answer.json()["field"]) == (status, field)


async def test_a_header_sent_twice_is_refused(client: Client) -> None:
    """Two parsers might take different ones."""
    answer = await post(client, [*HEADERS.items(), ("CE-Id", "2")])
    assert (answer.status_code, answer.json()["field"]) == (400, "ce-id")


async def test_the_content_type_chooses_the_mode(client: Client) -> None:
    """Structured events ignore ce- headers; plain JSON without them is told what to send instead."""
    event = example_event("structured", id="inside")
    mixed = await post(
        client, {**HEADERS, "content-type": "Application/CloudEvents+JSON; charset=UTF-8"}, event
    )
    assert mixed.json()["results"][0]["id"] == "inside"
    plain = await post(client, {"content-type": "application/json"}, event)
    assert (plain.status_code, plain.json()["fix"]) == (
        400,
        "send Content-Type: application/cloudevents+json",
    )
    batch = await post(client, {"content-type": "application/cloudevents-batch+json"}, event)
    assert (batch.status_code, batch.json()["field"]) == (400, "body")
    none = await post(client, {"content-type": "application/cloudevents-batch+json"}, [])
    assert (none.status_code, none.json()) == (202, {"results": []})


async def test_events_of_the_cloudevents_sdk_are_understood(client: Client) -> None:
    """What the official library writes, in both modes, comes in."""
    attributes = {"type": "example.recorded", "source": "urn:sdk:é", "subject": "Rhône", "myextension": "7"}
    for convert in (to_structured_event, to_binary_event):
        message = convert(CloudEvent(attributes, DATA))
        headers = {"content-type": "application/json", **{k.lower(): v for k, v in message.headers.items()}}
        answer = await post(client, headers, message.body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["results"][0]["source"] == "urn:sdk:é"


async def test_data_may_come_as_base64(client: Client) -> None:
    """`data_base64` is base64 of JSON; beside `data` it is refused."""
    structured = {"content-type": "application/cloudevents+json"}
    event = example_event()
    raw = {**event, "data_base64": "eyJkYXRhc2V0IjogImQifQ=="}
    both = await post(client, structured, raw)
    assert (both.status_code, both.json()["field"]) == (400, "data_base64")
    del raw["data"]
    alone = await post(client, structured, raw)
    assert alone.json()["field"] == "data.messages"
    broken = await post(client, structured, {**raw, "data_base64": "%%%"})
    assert (broken.status_code, broken.json()["field"]) == (400, "data_base64")

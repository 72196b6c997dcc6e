from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import jsonschema_rs
import pytest

from infra.outbox import body_of
from schemas.registry import Direction, types_of
from tests.producers.clients import document_event, example_event

SPECS = Path(__file__).parents[2] / ".peers/npm/node_modules/@asyncapi/specs/schemas"
"""AsyncAPI's own schemas, of every version; `make peers` brings them."""


@pytest.fixture
async def described(http: httpx2.AsyncClient) -> dict[str, Any]:
    """The document, which wants no key."""
    answer = await http.get("/asyncapi.json")
    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    found: dict[str, Any] = answer.json()
    return found


def follow(document: dict[str, Any], reference: str) -> Any:
    """What a reference within the document leads to."""
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(value: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(one) for one in value.values()))
    return set().union(*(references(one) for one in value)) if isinstance(value, list) else set()


def payload(document: dict[str, Any], name: str) -> jsonschema_rs.Validator:
    """A validator of one message's payload."""
    schema = {**document["components"]["messages"][name]["payload"], "components": document["components"]}
    return jsonschema_rs.validator_for(schema)


async def test_every_event_type_is_described(described: dict[str, Any]) -> None:
    """What may be published is received, what goes out is sent, nothing is forgotten, and every reference leads somewhere."""
    assert described["asyncapi"].startswith("3.")
    assert {one.name for one in types_of(Direction.IN)} == described["channels"]["events"]["messages"].keys()
    assert {one.name for one in types_of(Direction.OUT)} == described["channels"]["webhooks"][
        "messages"
    ].keys()
    assert {"publish": "receive", "deliver": "send"} == {
        name: one["action"] for name, one in described["operations"].items()
    }
    assert all(follow(described, reference) for reference in references(described))
    for message in described["components"]["messages"].values():
        assert message["summary"].endswith(".")


async def test_events_fit_their_description(described: dict[str, Any]) -> None:
    """Events that are accepted are valid, mistyped ones are not, and so are messages as webhooks receive them."""
    for event in (document_event(), example_event(), document_event(sequence="7", myextension="x")):
        assert payload(described, event["type"]).is_valid(event)
    wrong = document_event()
    wrong["data"]["colection"] = "books"
    assert not payload(described, "document.added").is_valid(wrong)
    assert not payload(described, "document.added").is_valid(example_event())
    data = {"collection": "books", "document_id": "a", "sequence": 1, "chunks": 1, "embedded": 1, "tokens": 4}
    sent = json.loads(body_of("document.indexed", uuid4(), 3, data, datetime.now(UTC)))
    assert payload(described, "document.indexed").is_valid(sent)
    for example in described["components"]["messages"]["document.added"]["examples"]:
        assert payload(described, "document.added").is_valid(example["payload"])


@pytest.mark.skipif(not SPECS.is_dir(), reason="AsyncAPI's schemas are missing: make peers")
async def test_the_official_schema_has_no_objection(described: dict[str, Any]) -> None:
    """The document is what AsyncAPI's schema of its version demands; a spoiled one is not."""
    schema = json.loads((SPECS / f"{described['asyncapi']}.json").read_text(encoding="utf-8"))
    official = jsonschema_rs.validator_for(schema)
    assert [] == [str(error) for error in official.iter_errors(described)]
    described["operations"]["publish"]["action"] = "shout"
    assert not official.is_valid(described)

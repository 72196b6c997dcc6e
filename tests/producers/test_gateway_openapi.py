from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import jsonschema_rs
import pytest
import structlog

from schemas.errors import PenstockError
from tests.producers.clients import BATCH, STRUCTURED, Client, document_event

CANARY = "canary-7f3a-flows-downhill"
NAME = "name-5d10-of-a-tenant"


@pytest.fixture
async def document(http: httpx2.AsyncClient) -> dict[str, Any]:
    """The OpenAPI document."""
    answer = await http.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def references(value: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(one) for one in value.values()))
    if isinstance(value, list):
        return set().union(*(references(one) for one in value))
    return set()


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """A generator of clients finds every schema that is named."""
    known = {
        f"#/components/{kind}/{name}" for kind, named in document["components"].items() for name in named
    }
    assert references(document) - known == set()
    assert document["openapi"].startswith("3.1")


async def test_every_operation_says_what_it_takes_and_answers(document: dict[str, Any]) -> None:
    """Each operation has a sentence, an answer of its own, and the problem document for everything else."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation.get("description") or operation.get("summary"), where
            assert any(status.startswith("2") for status in operation["responses"]), where
            if path not in {"/healthz", "/v1/hooks/openai"}:
                wanted = {"401", "403", "429", "500", "503"}
                assert wanted <= operation["responses"].keys(), where
                content = operation["responses"]["default"]["content"]
                assert list(content) == ["application/problem+json"], where
            if method in {"put", "patch"}:
                assert "requestBody" in operation, where


async def test_every_example_is_one(document: dict[str, Any]) -> None:
    """What is shown of requests and answers fits the schema beside it."""
    shown = [
        (f"{method} {path}", content["schema"], content["example"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "example" in content
    ]
    for name, schema in document["components"]["schemas"].items():
        shown += [(name, schema, example) for example in schema.get("examples", [])]
    assert len(shown) > 30
    for where, schema, example in shown:
        whole = {**schema, "components": document["components"]}
        assert jsonschema_rs.validator_for(whole).is_valid(example), where
    taken = [
        operation["requestBody"]["content"]
        for operations in document["paths"].values()
        for operation in operations.values()
        if "requestBody" in operation
    ]
    assert all("example" in content for contents in taken for content in contents.values())


ONE = "/v1/collections/{collection}/documents/{document_id}"
ASK, ASKED = "/v1/collections/{collection}/queries", "/v1/queries/{query_id}"
LOOKED_AT = [
    ("put", ONE, {"If-Match", "If-None-Match", "Idempotency-Key", "traceparent"}),
    ("get", ONE, {"If-None-Match"}),
    ("post", ASK, {"Prefer", "Idempotency-Key", "traceparent"}),
    ("get", ASKED, {"Last-Event-ID"}),
    ("post", "/v1/events", {"ce-id", "ce-source", "ce-type", "ce-specversion", "traceparent"}),
]
INSIDE = {"lease_lost", "newer_than_worker", "waiting", "error", "misconfigured"}
"""Codes of errors that no request meets."""


async def test_headers_codes_and_streams_are_described(document: dict[str, Any]) -> None:
    """What routes look at in headers, every code that an error may have, and answers that are streams."""
    shared = document["components"]["parameters"]
    for method, path, wanted in LOOKED_AT:
        given = document["paths"][path][method]["parameters"]
        names = {shared[one["$ref"].rsplit("/", 1)[1]]["name"] for one in given if "$ref" in one}
        assert wanted | {"X-Request-Id"} == names, path
    for method, path in (("post", ASK), ("get", ASKED)):
        answer = document["paths"][path][method]["responses"]["200"]
        assert {"application/json", "text/event-stream"} == answer["content"].keys()
    told = str(document["components"]["responses"])
    ours = {
        one.code
        for one in tree(PenstockError)
        if one.__module__.startswith(("schemas.", "producers.")) and one.code not in INSIDE
    }
    assert set() == {code for code in ours if f"`{code}`" not in told}


def tree(root: type[PenstockError]) -> Iterator[type[PenstockError]]:
    """An error and all that are derived from it."""
    yield root
    for one in root.__subclasses__():
        yield from tree(one)


async def test_the_documented_routes_are_those_of_the_design(document: dict[str, Any]) -> None:
    """What others already call is there, under these addresses."""
    wanted = {
        "/v1/events": {"get", "post"},
        "/v1/events/{event_id}": {"get"},
        "/v1/collections/{collection}/documents/{document_id}": {"get", "put", "delete"},
        "/v1/collections/{collection}/documents": {"get"},
        "/v1/collections/{collection}/search": {"post"},
        "/v1/collections/{collection}/queries": {"post"},
        "/v1/queries/{query_id}": {"get", "delete"},
        "/v1/queries/{query_id}/feedback": {"post"},
        "/v1/datasets/{dataset}/examples": {"post", "get"},
        "/v1/datasets/{dataset}": {"put", "get"},
        "/v1/training/runs": {"get"},
        "/v1/training/runs/{run_id}": {"get"},
        "/v1/training/runs/{run_id}/cancel": {"post"},
        "/v1/training/runs/{run_id}/promote": {"post"},
        "/v1/models": {"get"},
        "/v1/models/{alias}/rollback": {"post"},
        "/v1/collections/{collection}": {"put", "get"},
        "/v1/templates/{template}": {"put", "get"},
        "/v1/webhooks": {"get", "post"},
        "/v1/webhooks/{webhook_id}": {"get", "patch", "delete"},
        "/v1/webhooks/{webhook_id}/deliveries": {"get"},
        "/v1/deliveries/{delivery_id}/replay": {"post"},
        "/healthz": {"get"},
    }
    served = {path: set(operations) for path, operations in document["paths"].items()}
    assert wanted == {path: served.get(path, set()) & methods for path, methods in wanted.items()}


async def test_no_text_reaches_a_log_line_or_a_stranger(client: Client, http: httpx2.AsyncClient) -> None:
    """Texts and names stand in no log line, whatever becomes of a request, and texts in no error (P8)."""
    good = document_event(NAME)
    good["data"]["content"] = CANARY
    bad = {**good, "id": CANARY, "data": {**good["data"], "media_type": CANARY, "extra": CANARY}}
    query = {"question": CANARY, "filter": {NAME: {"$regex": CANARY}}}
    with structlog.testing.capture_logs() as lines:
        answers = [
            await client.call("POST", "/v1/events", json=good, headers=STRUCTURED),
            await client.call("POST", "/v1/events", json=bad, headers=STRUCTURED),
            await client.call("POST", "/v1/events", json=[bad], headers=BATCH),
            await client.call("POST", "/v1/events", content=f'{{"{CANARY}'.encode(), headers=STRUCTURED),
            await client.call("GET", f"/v1/collections/{NAME}/documents/{NAME}"),
            await client.call("GET", "/v1/events", params={"status": CANARY}),
            await client.call("POST", f"/v1/collections/{NAME}/search", json=query),
            await client.call(
                "POST", f"/v1/collections/{NAME}/queries", json={"question": CANARY, "top_k": "x"}
            ),
            await http.get("/v1/events", headers={"authorization": f"Bearer psk_{CANARY}"}),
        ]
    assert len([line for line in lines if line["event"] == "gateway.request"]) == len(answers)
    assert (CANARY in str(lines), NAME in str(lines)) == (False, False)
    assert client.key not in str(lines)
    for answer in answers[1:2] + answers[3:]:
        assert answer.is_error
        shown = {**answer.json(), "results": None}
        assert CANARY not in str(shown)

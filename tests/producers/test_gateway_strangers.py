from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
import pytest

from infra.database import Database
from tests.drive import Drive
from tests.producers.clients import Client, NewClient

SECRET = "the vault opens at midnight"
OWN = {
    ("put", "/v1/collections/{collection}"),
    ("put", "/v1/collections/{collection}/documents/{document_id}"),
    ("delete", "/v1/collections/{collection}/documents/{document_id}"),
    ("put", "/v1/datasets/{dataset}"),
    ("post", "/v1/datasets/{dataset}/examples"),
    ("put", "/v1/templates/{template}"),
}
"""Operations on names that every tenant may give to things of its own."""
RUN = """
INSERT INTO training_runs (tenant_id, run_id, dataset, alias, base_model, reason, margin, status)
VALUES ($1, $2, 'vaults', 'chat', 'local-chat', 'threshold', 0.1, 'rejected')
"""
ALIAS = "INSERT INTO model_aliases (tenant_id, alias, model, previous) VALUES ($1, 'secret-alias', 'ft:north', 'x')"


class World:
    """One tenant with one of everything, and what each is called in an address."""

    def __init__(self, client: Client, names: dict[str, str]) -> None:
        self.client = client
        self.names = names


@pytest.fixture
async def north(new_client: NewClient, drive: Drive, owner_database: Database) -> World:
    """A tenant that has one of everything that has an address."""
    client = await new_client()
    await drive.use("ingest", "answer", "train")

    async def made(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await client.call(method, path, json=body)
        assert answer.is_success, (path, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    put = await made("PUT", "/v1/collections/notes/documents/strongbox", {"content": f"A note: {SECRET}."})
    await drive.settle(client.tenant)
    asked = await made("POST", "/v1/collections/notes/queries", {"question": "When does the vault open?"})
    await made("PUT", "/v1/datasets/vaults", {"threshold": 50})
    messages = [{"role": "user", "content": SECRET}, {"role": "assistant", "content": SECRET}]
    await made("POST", "/v1/datasets/vaults/examples", {"messages": messages})
    await made("PUT", "/v1/templates/vaulted", {"system": SECRET})
    hook = await made("POST", "/v1/webhooks", {"url": "http://127.0.0.1:9/a", "description": SECRET})
    sent = await made("POST", f"/v1/webhooks/{hook['id']}/test", {})
    await drive.settle(client.tenant)
    run_id = uuid4()
    async with owner_database.connection() as connection:
        await connection.execute(RUN, client.tenant, run_id)
        await connection.execute(ALIAS, client.tenant)
    names = {
        "collection": "notes",
        "document_id": "strongbox",
        "event_id": put["event_id"],
        "query_id": asked["id"],
        "dataset": "vaults",
        "run_id": str(run_id),
        "alias": "secret-alias",
        "template": "vaulted",
        "webhook_id": hook["id"],
        "delivery_id": sent["delivery_id"],
    }
    return World(client, names)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation of the API that wants a key: method, path, description."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation.get("security") != []:
                yield method, path, operation


def request_of(path: str, operation: dict[str, Any], names: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """An address with names filled in, and the body that the document gives as its example."""
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    assert "{" not in path, f"{path}: give this id a value in `north`, so that the operation is tried"
    contents = operation.get("requestBody", {}).get("content", {})
    more: dict[str, Any] = {}
    if contents:
        kind, content = next(iter(contents.items()))
        more = {"json": content.get("example", {}), "headers": {"content-type": kind}}
    return path, more


async def snapshot(world: World, document: dict[str, Any]) -> dict[str, Any]:
    """What a tenant sees of everything that it can look at."""
    seen = {}
    for method, path, operation in operations(document):
        if method == "get":
            address, _ = request_of(path, operation, world.names)
            answer = await world.client.call("GET", address)
            assert answer.status_code == 200, (path, answer.text)
            seen[path] = answer.json()
    return seen


def told(answer: httpx2.Response, names: dict[str, str]) -> tuple[int, list[str], str]:
    """All that an answer tells, but for its own id and the names that the caller itself gave."""
    text = answer.text.replace(answer.headers["x-request-id"], "…")
    for name in names.values():
        text = text.replace(name, "…")
    return answer.status_code, sorted(answer.headers), text


async def test_no_endpoint_tells_a_stranger_that_something_exists(
    http: httpx2.AsyncClient, north: World, new_client: NewClient
) -> None:
    """Each operation of the OpenAPI document, with another tenant's ids and with ids of nobody: both answers are alike.

    Listings are empty of the other's things, and nothing that a stranger does changes what the owner sees.
    """
    document = (await http.get("/openapi.json")).json()
    south = await new_client()
    before = await snapshot(north, document)
    assert SECRET in str(before)
    nobody = {name: str(uuid4()) if name.endswith("_id") else f"no-{name}" for name in north.names}
    tried = sorted(operations(document), key=lambda one: one[:2] in OWN)
    hidden = [
        north.client.tenant,
        SECRET,
        *(north.names[name] for name in north.names if name.endswith("_id")),
    ]
    for method, path, operation in tried:
        address, more = request_of(path, operation, north.names)
        answer = await south.call(method.upper(), address, **more)
        where = f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.status_code < 500, where
        if "{" in path and (method, path) not in OWN:
            assert answer.status_code == 404, where
            other, more = request_of(path, operation, nobody)
            missing = await south.call(method.upper(), other, **more)
            assert told(answer, north.names) == told(missing, nobody), where
        elif method == "get":
            assert not [one for one in hidden if one in answer.text], where
    assert before == await snapshot(north, document)
    assert len(tried) > 30

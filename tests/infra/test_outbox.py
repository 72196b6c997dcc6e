from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson
import pytest

from infra import outbox
from infra.database import Database
from infra.outbox import Said, matches, message_id
from schemas.work import Publication


async def endpoint(owner: Database, tenant: str, **columns: Any) -> str:
    """An active endpoint; its secret is of no interest here."""
    row: dict[str, Any] = {
        "url": "https://a.example/hook",
        "types": ["*"],
        "filter": None,
        "payload": "auto",
        "callback_prefix": False,
    }
    row |= columns
    endpoint_id = uuid4()
    async with owner.connection() as connection:
        await connection.execute(
            "INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, types, filter, payload, callback_prefix, secrets)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, '[]')",
            tenant,
            endpoint_id,
            *row.values(),
        )
    return str(endpoint_id)


async def say(worker: Database, tenant: str, *publications: Publication) -> list[dict[str, Any]]:
    """Write publications as an effect would; returns the deliveries that came of them."""
    async with worker.transaction(tenant) as connection:
        await outbox.write(connection, [Said(tenant, one) for one in publications])
        rows = await connection.fetch("SELECT * FROM deliveries WHERE tenant_id = $1", tenant)
    said = [{**dict(row), "body": orjson.loads(row["body"])} for row in rows]
    return sorted(said, key=lambda one: int(one["body"]["sequence"]))


def indexed(name: str, **data: Any) -> Publication:
    """A document's result."""
    return Publication(
        "document.indexed", {"collection": "c", "document_id": name, "chunks": 3, **data}, subject=f"c/{name}"
    )


@pytest.mark.parametrize(
    ("types", "name", "expected"),
    [
        (["*"], "document.indexed", True),
        (["document.indexed"], "document.indexed", True),
        (["document.*"], "document.indexed", True),
        (["document.*"], "documents.indexed", False),
        (["document.failed"], "document.indexed", False),
        ([], "document.indexed", False),
    ],
)
def test_a_subscription_names_types_families_or_everything(
    types: list[str], name: str, *, expected: bool
) -> None:
    """Exact names, ``family.*`` and ``*``."""
    assert expected == matches(types, name)


async def test_each_matching_endpoint_gets_the_same_message(
    owner_database: Database, worker_database: Database, tenant: str
) -> None:
    """One message id and one body for every endpoint that subscribed; nobody else gets a row."""
    first = await endpoint(owner_database, tenant)
    second = await endpoint(owner_database, tenant, types=["document.*"])
    await endpoint(owner_database, tenant, types=["query.answered"])
    one, other = await say(worker_database, tenant, indexed("a"))
    assert {first, second} == {str(one["endpoint_id"]), str(other["endpoint_id"])}
    assert (one["message_id"], one["body"]) == (other["message_id"], other["body"])
    assert message_id(one["event_id"]) == one["body"]["id"]
    assert {"type", "timestamp", "data", "id", "sequence"} == set(one["body"])


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"chunks": {"$gte": 3}}, ["a", "b"]),
        ({"document_id": "a"}, ["a"]),
        ({"collection": {"$nin": ["c"]}}, []),
        ({}, ["a", "b"]),
    ],
)
async def test_a_content_filter_decides(
    owner_database: Database,
    worker_database: Database,
    tenant: str,
    condition: Mapping[str, Any],
    expected: list[str],
) -> None:
    """An endpoint with a filter receives the events whose data pass it."""
    await endpoint(owner_database, tenant, filter=dict(condition))
    got = await say(worker_database, tenant, indexed("a"), indexed("b"))
    assert expected == [one["body"]["data"]["document_id"] for one in got]


async def test_a_thin_or_large_payload_carries_ids_only(
    owner_database: Database, worker_database: Database, tenant: str
) -> None:
    """What is asked thin, or too large, is sent without its text."""
    await endpoint(owner_database, tenant, payload="thin")
    small, large = await say(
        worker_database, tenant, indexed("a", note="words"), indexed("b", note="x" * 30_000)
    )
    assert {"collection": "c", "document_id": "a"} == small["body"]["data"]
    assert {"collection": "c", "document_id": "b"} == large["body"]["data"]


@pytest.mark.parametrize(
    ("payload", "whole"), [("auto", [True, False]), ("full", [True, True]), ("thin", [False, False])]
)
async def test_the_owner_decides_how_large_a_message_is(
    owner_database: Database, worker_database: Database, tenant: str, payload: str, whole: list[bool]
) -> None:
    """Full is always full, thin always thin; unless told, what is above 20 kB is thin."""
    await endpoint(owner_database, tenant, payload=payload)
    got = await say(worker_database, tenant, indexed("a", note="words"), indexed("b", note="x" * 30_000))
    assert whole == ["note" in one["body"]["data"] for one in got]


async def test_a_callback_goes_to_the_endpoint_whose_prefix_covers_it(
    owner_database: Database, worker_database: Database, tenant: str
) -> None:
    """The prefix is compared by its parts: a host that only begins alike is not covered."""
    await endpoint(owner_database, tenant, url="https://a.example/in", callback_prefix=True)

    def answered(url: str) -> Publication:
        return Publication("query.answered", {"query_id": "q"}, callback_url=url)

    [one] = await say(
        worker_database,
        tenant,
        answered("https://a.example/in/7"),
        answered("https://a.example.evil.example/in/7"),
        answered("https://a.example/inside"),
    )
    assert one["url"] == "https://a.example/in/7"


async def test_sequences_rise_per_subject(
    owner_database: Database, worker_database: Database, tenant: str
) -> None:
    """A receiver can drop what is older than what it has."""
    await endpoint(owner_database, tenant)
    await say(worker_database, tenant, indexed("a"))
    got = await say(worker_database, tenant, indexed("a"))
    sequences = [one["body"]["sequence"] for one in got]
    assert sequences == sorted(set(sequences))

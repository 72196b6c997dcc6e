from __future__ import annotations

from typing import Any

import pytest

from producers.gateway.addresses import document_path
from tests.drive import Drive
from tests.producers.clients import Client, NewClient


@pytest.mark.parametrize(
    "document_id",
    [
        "a",
        "a/b",
        "a//b/",
        "/lead",
        "é ö",
        "100%",
        "%2F",
        "a?b#c",
        "..",
        "a\\b",
        "x" * 512,
        "line\nbreak",
        '"',
    ],
)
async def test_ids_may_hold_any_character(client: Client, drive: Drive, document_id: str) -> None:
    """What is put under a percent-encoded id is served under the same id, before and after it is indexed."""
    await drive.use("ingest")
    path = document_path("books", document_id)
    put = await client.call("PUT", path, json={"content": "Water flows downhill.", "title": "Water"})
    assert put.status_code == 202
    assert put.json()["document_id"] == document_id
    assert put.headers["location"] == f"/v1/events/{put.json()['event_id']}"
    pending = (await client.call("GET", path)).json()
    assert (pending["id"], pending["status"], pending["title"]) == (document_id, "pending", "Water")
    await drive.settle(client.tenant)
    served = (await client.call("GET", path)).json()
    assert {"id": served["id"], "collection": served["collection"], "status": served["status"]} == {
        "id": document_id,
        "collection": "books",
        "status": "indexed",
    }
    assert served["chunks"] == 1
    assert served["tokens"] > 0
    assert served["error"] is None
    assert served["indexed_at"] is not None


async def test_a_document_lives_and_goes(client: Client, drive: Drive) -> None:
    """Replaced, the new version is served; deleted, it is a tombstone that listings leave out unless asked."""
    await drive.use("ingest")
    path = "/v1/collections/books/documents/river"
    for content in ("The Rhine flows north.", "The Rhône flows south."):
        put = await client.call("PUT", path, json={"content": content, "metadata": {"lang": "en"}})
        assert put.status_code == 202
        await drive.settle(client.tenant)
    served = (await client.call("GET", path)).json()
    assert (served["status"], served["metadata"]) == ("indexed", {"lang": "en"})
    await client.call("PUT", "/v1/collections/books/documents/lake", json={"content": "Still water."})
    await drive.settle(client.tenant)
    listed = (await client.call("GET", "/v1/collections/books/documents", params={"limit": 1})).json()
    assert [one["id"] for one in listed["items"]] == ["lake"]
    rest = await client.call(
        "GET", "/v1/collections/books/documents", params={"limit": 1, "cursor": listed["next_cursor"]}
    )
    assert ([one["id"] for one in rest.json()["items"]], rest.json()["next_cursor"]) == (["river"], None)
    gone = await client.call("DELETE", path)
    assert gone.status_code == 202
    await drive.settle(client.tenant)
    assert (await client.call("GET", path)).json()["status"] == "purged"
    for params, ids in (({}, ["lake"]), ({"status": "purged"}, ["river"]), ({"status": "failed"}, [])):
        items = (await client.call("GET", "/v1/collections/books/documents", params=params)).json()["items"]
        assert (params, [one["id"] for one in items]) == (params, ids)


async def test_an_explicit_sequence_decides(client: Client, drive: Drive) -> None:
    """With numbers the highest wins, whatever the order of arrival, for deletes too."""
    await drive.use("ingest")
    path = "/v1/collections/books/documents/numbered"
    for sequence, content in ((7, "Seven."), (5, "Five.")):
        await client.call("PUT", path, json={"content": content, "sequence": sequence})
        await drive.settle(client.tenant)
    assert (await client.call("GET", path)).json()["sequence"] == 7
    await client.call("DELETE", path, params={"sequence": 6})
    await drive.settle(client.tenant)
    assert (await client.call("GET", path)).json()["status"] == "indexed"
    await client.call("DELETE", path, params={"sequence": 8})
    await drive.settle(client.tenant)
    assert (await client.call("GET", path)).json()["status"] == "purged"


async def test_what_is_not_there_is_a_404(client: Client, new_client: NewClient, drive: Drive) -> None:
    """No document, no collection and another tenant's are told apart by nobody."""
    await drive.use("ingest")
    await client.call("PUT", "/v1/collections/books/documents/mine", json={"content": "Mine."})
    await drive.settle(client.tenant)
    stranger = await new_client()
    for path in (
        "/v1/collections/books/documents/mine",
        "/v1/collections/books/documents",
        "/v1/collections/books",
        "/v1/collections/books/documents/none",
        "/v1/collections/NO!/documents/none",
    ):
        answer = await stranger.call("GET", path)
        assert (path, answer.status_code, answer.json()["code"]) == (path, 404, "not_found")
    for mode in ("hybrid", "text"):
        body = {"question": "What?", "mode": mode}
        answer = await stranger.call("POST", "/v1/collections/books/search", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_passages_are_found_without_a_paid_answer(client: Client, drive: Drive) -> None:
    """Search returns passages in the documented shape, filtered by metadata; bad filters name their operator."""
    await drive.use("ingest")
    for name, text, lang in (
        ("rhine", "# Rhine\n\nThe Rhine rises in the Swiss Alps and flows north.", "en"),
        ("garonne", "# Garonne\n\nThe Garonne rises in the Pyrenees.", "fr"),
    ):
        body = {"content": text, "media_type": "text/markdown", "metadata": {"lang": lang}}
        await client.call("PUT", f"/v1/collections/rivers/documents/{name}", json=body)
    await drive.settle(client.tenant)
    for mode in ("hybrid", "vector", "text"):
        found = await client.call(
            "POST",
            "/v1/collections/rivers/search",
            json={"question": "Where does the Rhine rise?", "mode": mode},
        )
        assert found.status_code == 200, found.text
        first = found.json()["results"][0]
        assert (mode, first["document_id"], first["metadata"]) == (mode, "rhine", {"lang": "en"})
        assert {"chunk_id", "text", "heading", "page", "score"} <= first.keys()
    filtered = await client.call(
        "POST",
        "/v1/collections/rivers/search",
        json={"question": "Where does it rise?", "filter": {"lang": {"$eq": "fr"}}, "top_k": 5},
    )
    assert [one["document_id"] for one in filtered.json()["results"]] == ["garonne"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"question": "x", "filter": {"lang": {"$regex": "x"}}}, "filter.lang.$regex"),
        ({"question": ""}, "question"),
        ({"question": "x", "top_k": 0}, "top_k"),
        ({"question": "x", "mode": "best"}, "mode"),
        ({"query": "x"}, "question"),
    ]
    for body, field in wrong:
        refused = await client.call("POST", "/v1/collections/rivers/search", json=body)
        assert (body, refused.status_code, refused.json()["field"]) == (body, 400, field)


async def test_collections_are_set_up_and_counted(client: Client, drive: Drive) -> None:
    """PUT makes a collection and keeps its settings; its language is fixed by its first document."""
    await drive.use("ingest")
    made = await client.call(
        "PUT",
        "/v1/collections/fluesse",
        json={"language": "german", "chunking": {"size": 128}},
    )
    assert (made.status_code, made.json()["language"], made.json()["documents"]) == (200, "german", {})
    assert made.json()["settings"] == {"chunking": {"size": 128}}
    await client.call("PUT", "/v1/collections/fluesse/documents/elbe", json={"content": "Die Elbe."})
    await drive.settle(client.tenant)
    changed = await client.call("PUT", "/v1/collections/fluesse", json={"min_similarity": 0.5})
    assert changed.json()["settings"] == {"chunking": {"size": 128}, "min_similarity": 0.5}
    assert (changed.json()["documents"], changed.json()["chunks"]) == ({"indexed": 1}, 1)
    wrong = await client.call("PUT", "/v1/collections/fluesse", json={"chunking": {"size": 64}})
    assert (wrong.status_code, wrong.json()["field"]) == (400, "chunking")
    late = await client.call("PUT", "/v1/collections/fluesse", json={"language": "french"})
    assert (late.status_code, late.json()["code"]) == (409, "conflict")
    unknown = await client.call("PUT", "/v1/collections/other", json={"language": "klingon"})
    assert (unknown.status_code, unknown.json()["field"]) == (400, "language")
    listed = (await client.call("GET", "/v1/collections")).json()["items"]
    assert [one["name"] for one in listed] == ["fluesse"]

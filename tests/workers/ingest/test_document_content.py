from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from infra.egress import Egress, EgressPolicy
from schemas.errors import BadInput, PenstockError, Unreadable
from schemas.inbound import DocumentAdded
from tests.infra.raw_server import Exchange, raw_server
from tests.workers.ingest.shelf import Shelf
from workers.ingest.chunk import Chunking
from workers.ingest.content import Content, content_of

MakePdf = Callable[..., bytes]
PDF = "application/pdf"


@pytest.mark.parametrize(
    ("said", "served", "expected"),
    [
        (None, "text/html; charset=latin-1", "text/html; charset=latin-1"),
        (None, "application/octet-stream", Unreadable),
        (None, "image/png", BadInput),
        ("text/markdown", "application/octet-stream", "text/markdown"),
        ("text/markdown", "text/plain", "text/markdown"),
        ("text/html", "text/html; charset=latin-1", "text/html; charset=latin-1"),
        ("text/html; charset=utf-8", "text/html; charset=latin-1", "text/html; charset=utf-8"),
        (PDF, "text/html", Unreadable),
        (PDF, "image/png", BadInput),
    ],
)
async def test_event_and_server_have_to_agree_on_the_kind(
    said: str | None, served: str, expected: str | type[PenstockError]
) -> None:
    """What the server is sure of is held against the event; an error page is not taken for the document."""

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"<p>hello", content_type=served)

    async with (
        raw_server(script) as server,
        Egress(EgressPolicy.parse("127.0.0.0/8:*")) as egress,
    ):
        uri = f"http://127.0.0.1:{server.port}/x"
        data = DocumentAdded(collection="c", document_id="d", uri=uri, media_type=said)
        if isinstance(expected, str):
            content = await content_of(data, egress)
            assert (expected, b"<p>hello") == (content.media_type, content.body)
        else:
            with pytest.raises(expected):
                await content_of(data, egress)


def test_the_recipe_changes_with_all_that_decides_the_chunks() -> None:
    """Media type, chunking, and whether the title is read from the document; not the title itself."""
    content, chunking = Content("x", "text/plain"), Chunking()
    recipe = content.recipe(chunking, None)
    assert recipe == Content("y", "text/plain").recipe(chunking, None)
    others = [
        Content("x", "text/markdown").recipe(chunking, None),
        content.recipe(replace(chunking, size=300), None),
        content.recipe(replace(chunking, overlap=10), None),
        content.recipe(chunking, "a title"),
    ]
    assert recipe not in others
    assert others[-1] == content.recipe(chunking, "another title")


async def test_a_document_is_fetched_from_its_address(shelf: Shelf, make_pdf: MakePdf) -> None:
    """A PDF behind a URL is indexed by page; the query string, which may hold a secret, is nowhere kept."""
    pdf = make_pdf(["first page", "second page"])

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, pdf, content_type=PDF)

    async with raw_server(script) as server:
        uri = f"http://127.0.0.1:{server.port}/a.pdf"
        await shelf.put(None, uri=f"{uri}?token=secret", sequence=1)
    row = await shelf.row()
    assert ("indexed", uri, PDF) == (row["status"], row["uri"], row["media_type"])
    assert [chunk["page"] for chunk in await shelf.chunks()] == [1]
    assert "first page" in (await shelf.texts())[0]
    assert "second page" in (await shelf.texts())[0]


async def test_the_same_file_behind_an_address_is_not_read_again(shelf: Shelf) -> None:
    """A second version with the same bytes keeps its chunks."""

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"# Title\n\ntext", content_type="text/markdown")

    async with raw_server(script) as server:
        for _ in range(2):
            await shelf.put(None, uri=f"http://127.0.0.1:{server.port}/a.md")
    assert [said["embedded"] for said in await shelf.said("indexed")] == [1, 0]


@pytest.mark.parametrize(
    ("status", "attempts", "code"), [(404, 1, "unreadable"), (302, 1, "unreadable"), (500, 8, "call_failed")]
)
async def test_an_address_without_a_document_fails_it(
    shelf: Shelf, status: int, attempts: int, code: str
) -> None:
    """A refusal is final, a server that fails is tried again; either way the reason is shown."""

    async def script(exchange: Exchange) -> None:
        await exchange.reply(status, b"", location="http://127.0.0.1:1/")

    async with raw_server(script) as server:
        event_id = await shelf.put(None, uri=f"http://127.0.0.1:{server.port}/x?secret=1")
    event = await shelf.drive.event(event_id)
    assert ("dead", attempts, code) == (event["status"], event["attempts"], event["error"]["code"])
    assert "secret" not in str(await shelf.said("failed")) + str(event["error"])


async def test_an_address_inside_our_own_network_is_blocked(shelf: Shelf) -> None:
    """The guarded door refuses it, and the document says so without naming the address that was found."""
    event_id = await shelf.put(None, uri="http://169.254.169.254/latest/meta-data/")
    assert (await shelf.drive.event(event_id))["error"]["code"] == "blocked_target"
    [said] = await shelf.said("failed")
    assert said["error"]["code"] == "blocked_target"

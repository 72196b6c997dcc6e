from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from schemas.errors import Unreadable
from workers.ingest.media import source
from workers.ingest.parsed import MAX_PAGES
from workers.ingest.read import read

MakePdf = Callable[..., bytes]


def test_a_pdf_keeps_pages_headings_and_title(make_pdf: MakePdf) -> None:
    """Each page's text has its number and stands under the outline's heading that begins there."""
    raw = make_pdf(["first page", "second page"], outline=["Intro", "Body"])
    blocks = read(source(raw, "application/pdf")).blocks
    expected = [("first page", 1, ("Intro",)), ("second page", 2, ("Body",))]
    assert expected == [(block.text, block.page, block.heading) for block in blocks]
    assert read(source(make_pdf(["x"], title="The title"), "application/pdf")).title == "The title"


def test_a_broken_page_is_named(make_pdf: MakePdf) -> None:
    """When one page cannot be read, the error says which."""
    raw = make_pdf(["good", "good", "bad"], filters={3: "NoSuchDecode"})
    with pytest.raises(Unreadable) as caught:
        read(source(raw, "application/pdf"))
    assert caught.value.page == 3
    assert "page 3" in caught.value.message


def test_a_stream_bomb_is_stopped_where_it_grows(make_pdf: MakePdf) -> None:
    """A page of 30 kB that unpacks to 30 MB is refused with its page."""
    bomb = zlib.compress(b" " * 30_000_000, 9)
    raw = make_pdf([], streams=[zlib.compress(b"BT /F 12 Tf (good) Tj ET"), bomb])
    with pytest.raises(Unreadable, match="page 2 grows larger than allowed") as caught:
        read(source(raw, "application/pdf"))
    assert caught.value.page == 2


def test_a_scan_without_text_says_so(make_pdf: MakePdf) -> None:
    """No text on any page: the caller learns that text recognition is missing."""
    with pytest.raises(Unreadable, match="no text on any of 2 pages") as caught:
        read(source(make_pdf(["", ""]), "application/pdf"))
    assert caught.value.fix == "run text recognition on a scan first"


def test_too_many_pages_are_refused(make_pdf: MakePdf) -> None:
    """More pages than allowed are counted, not read."""
    with pytest.raises(Unreadable, match=str(MAX_PAGES + 1)):
        read(source(make_pdf(["x"] * (MAX_PAGES + 1)), "application/pdf"))


@pytest.mark.parametrize("cut", [20, 200, 500])
def test_a_cut_pdf_is_unreadable(make_pdf: MakePdf, cut: int) -> None:
    """A file that ends too early is a reason, never another exception."""
    with pytest.raises(Unreadable):
        read(source(make_pdf(["text"])[:cut], "application/pdf"))

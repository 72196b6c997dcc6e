from __future__ import annotations

import pytest

from schemas.errors import Unreadable
from workers.ingest.media import source
from workers.ingest.parsed import Kind, Parsed
from workers.ingest.read import read


def parsed(html: str) -> Parsed:
    """Read a page."""
    return read(source(html, "text/html"))


def test_html_gives_headings_prose_code_and_tables() -> None:
    """The structure of a page survives, its markup does not."""
    page = parsed(
        "<!doctype html><html><head><title> My  page </title><style>p{}</style></head><body>"
        "<h1>One</h1><p>Hello <b>bold</b>&nbsp;&amp; <a href='http://x.example/'>link</a>.</p>"
        "<h2>Two</h2><pre>a\n  b</pre>"
        "<table><tr><th>k<th>v</tr><tr><td>1<td>2</table>"
        "<script>alert('x')</script>"
    )
    expected = [
        (Kind.HEADING, ("One",), "# One"),
        (Kind.PROSE, ("One",), "Hello bold & link."),
        (Kind.HEADING, ("One", "Two"), "## Two"),
        (Kind.CODE, ("One", "Two"), "```\na\n  b\n```"),
        (Kind.TABLE, ("One", "Two"), "k | v\n--- | ---\n1 | 2"),
    ]
    assert expected == [(block.kind, block.heading, block.text) for block in page.blocks]
    assert page.title == "My page"


def test_tags_that_html_lets_one_leave_open_do_not_nest() -> None:
    """A thousand list items and paragraphs without end tags are siblings, not a tree a thousand deep."""
    page = parsed("<ul>" + "<li>item" * 1000 + "</ul>" + "<p>par" * 1000)
    lines = page.blocks[0].text.split("\n")
    assert lines.count("- item") == 1000
    assert lines.count("par") == 1000


def test_nested_lists_keep_their_indentation() -> None:
    """An inner item is indented below its outer one."""
    page = parsed("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>")
    assert page.blocks[0].text == "- a\n  - b\n- c"


def test_images_and_links_are_text_and_nothing_else() -> None:
    """Of an image its alternative text is kept; no address of anything is."""
    page = parsed(
        "<p><img src='http://evil.example/p.png' alt='a chart'> <a href='file:///etc/passwd'>see</a>"
    )
    assert page.blocks[0].text == "a chart see"


def test_a_layout_table_is_prose() -> None:
    """Tables with one column or with whole articles in a cell are not tables."""
    page = parsed(f"<table><tr><td>menu</td><td>{'word ' * 200}</td></tr></table>")
    assert [block.kind for block in page.blocks] == [Kind.PROSE]


def test_a_stray_end_tag_in_a_cell_does_not_end_the_table() -> None:
    """`</div>` without its beginning inside a cell is ignored."""
    page = parsed("<div><table><tr><td>a</div></td><td>b</td></tr><tr><td>c<td>d</table></div>")
    assert page.blocks[0].text == "a | b\n--- | ---\nc | d"


def test_line_breaks_are_kept_and_white_space_is_not() -> None:
    """`<br>` breaks a line, a line feed in the source does not."""
    assert parsed("<p>one\n  two<br>three").blocks[0].text == "one two\nthree"


def test_entities_of_a_document_type_are_not_expanded() -> None:
    """The billion laughs stay as short as they were written."""
    laughs = '<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]><p>&b; text</p>'
    assert "lollol" not in parsed(laughs).blocks[0].text


def test_html_nested_too_deeply_is_refused() -> None:
    """64 levels are read; deeper ones are a reason, not a crash."""
    assert parsed("<div>" * 64 + "x").blocks[0].text == "x"
    with pytest.raises(Unreadable, match="deeper than 64"):
        parsed("<div>" * 100_000 + "x")


def test_html_without_a_word_is_refused() -> None:
    """A page that only scripts would fill holds no text."""
    with pytest.raises(Unreadable, match="no text"):
        parsed("<html><body><div id=app></div><script>render()</script></body></html>")

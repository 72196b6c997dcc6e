from __future__ import annotations

import pytest

from schemas.errors import BadInput, TooLarge, Unreadable
from workers.ingest.media import source
from workers.ingest.parsed import MAX_INPUT, Kind, Parsed
from workers.ingest.read import read

MARKDOWN = """---
title: "From the front"
---
# Guide

Intro.

Setext
------
- item
- item

```python
# not a heading

x = 1
```

| a | b |
|---|:--|
| 1 | 2 |
after

## Deep ##
text
"""


def parsed(content: bytes | str, media_type: str | None = None) -> Parsed:
    """Read a document."""
    return read(source(content, media_type))


def test_markdown_gives_headings_code_and_tables_as_blocks_of_their_own() -> None:
    """Each block has its kind and the headings above it; code that looks like a heading is code."""
    blocks = parsed(MARKDOWN, "text/markdown").blocks
    expected = [
        (Kind.PROSE, ()),
        (Kind.HEADING, ("Guide",)),
        (Kind.PROSE, ("Guide",)),
        (Kind.HEADING, ("Guide", "Setext")),
        (Kind.PROSE, ("Guide", "Setext")),
        (Kind.CODE, ("Guide", "Setext")),
        (Kind.TABLE, ("Guide", "Setext")),
        (Kind.PROSE, ("Guide", "Setext")),
        (Kind.HEADING, ("Guide", "Deep")),
        (Kind.PROSE, ("Guide", "Deep")),
    ]
    assert expected == [(block.kind, block.heading) for block in blocks]
    assert blocks[5].text == "```python\n# not a heading\n\nx = 1\n```"
    assert blocks[6].head == "| a | b |\n|---|:--|"
    assert blocks[8].text == "## Deep"


def test_markdown_takes_its_title_from_the_front_matter_or_the_first_heading() -> None:
    """The front matter wins over the first top-level heading; without either there is no title."""
    assert parsed(MARKDOWN, "text/markdown").title == "From the front"
    assert parsed("# One\n\ntext", "text/markdown").title == "One"
    assert parsed("## Two\n\ntext", "text/markdown").title is None


@pytest.mark.parametrize(
    "text",
    ["#nospace", "text\nmore\n---\nend", "- item\n---\nend", "a | b\nno rule below", "``` inline `` ` ```"],
)
def test_what_only_looks_like_structure_stays_prose(text: str) -> None:
    """Hashes without a space, rules below paragraphs and lists, lone pipes: all prose."""
    assert [block.kind for block in parsed(text, "text/markdown").blocks] == [Kind.PROSE]


def test_json_becomes_one_line_per_value_with_its_path() -> None:
    """Records are paragraphs; lists of plain values share a line; the title is the object's."""
    one = parsed('{"title": "T", "a": {"b": [1, 2], "c": null}, "d": [{"e": "x"}]}', "application/json")
    assert one.title == "T"
    assert one.blocks[0].text == "title: T\na.b: 1, 2\na.c: null\nd[0].e: x"
    many = parsed('[{"a": 1}, {"a": 2}]', "application/vnd.acme+json")
    assert many.blocks[0].text == "a: 1\n\na: 2"
    lines = parsed('{"a": 1}\n\n{"a": 2}\n', "application/x-ndjson")
    assert lines.blocks[0].text == "a: 1\n\na: 2"


def test_csv_becomes_a_table_with_its_header() -> None:
    """Quoted line feeds and pipes do not break rows, and the delimiter is found in the first line."""
    table = parsed('name;text\n"a";"one\ntwo"\nb;x|y\n', "text/csv").blocks[0]
    assert table.kind is Kind.TABLE
    assert table.text == "name | text\n--- | ---\na | one two\nb | x/y"
    assert table.head == "name | text\n--- | ---"


@pytest.mark.parametrize(
    ("content", "media_type", "reason"),
    [
        (b"", "text/plain", "empty"),
        (b" \n\t ", "text/markdown", "empty"),
        (b"ok \xff\xfe", "text/plain", "byte 3 is not valid utf-8"),
        ("a\x00b", "text/plain", "character 1 is NUL"),
        (b"%PDF-1.7 ...", "text/plain", "a PDF"),
        (b"PK\x03\x04....", "text/html", "ZIP"),
        ("{oops", "application/json", "not valid JSON"),
        ('{"a": 1}\n{oops', "application/jsonl", "line 2 is not valid JSON"),
        ("[" * 70 + "1" + "]" * 70, "application/json", "deeper than 64"),
        ("[" * 5000 + "]" * 5000, "application/json", "JSON"),
        ('a,b\n"never closed', "text/csv", "line 2 is not valid CSV"),
        ("{}", "application/json", "no text"),
        (b"not a pdf", "application/pdf", "not a PDF"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    content: bytes | str, media_type: str, reason: str
) -> None:
    """Empty, binary, broken and disguised documents end in `Unreadable`, which says what is wrong."""
    raw = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(Unreadable, match=reason):
        parsed(raw, media_type)


@pytest.mark.parametrize(
    ("content", "media_type", "field"),
    [
        ("x", "image/png", "data.media_type"),
        ("x", "application/xml", "data.media_type"),
        ("x", "text/plain; charset=zip", "data.media_type"),
        ("x", "text/plain; charset=\u00e9", "data.media_type"),
        ("half \ud800", "text/plain", "data.content"),
        ("not base64!", "application/pdf", "data.content"),
    ],
)
def test_wrong_input_names_the_field(content: str, media_type: str, field: str) -> None:
    """A media type that nobody reads, an unknown charset, half a character and bad base64 are the caller's mistakes."""
    with pytest.raises(BadInput) as caught:
        parsed(content, media_type)
    assert caught.value.field == field


def test_a_document_beyond_the_limit_is_too_large() -> None:
    """One byte more than allowed is refused before anything is read."""
    with pytest.raises(TooLarge):
        source(b"x" * (MAX_INPUT + 1), "text/plain")


def test_text_is_decoded_by_its_declared_charset() -> None:
    """Latin-1 and UTF-16 arrive as the same text as UTF-8; a byte order mark and CRLF disappear."""
    assert parsed("é".encode("latin-1"), "text/plain; charset=ISO-8859-1").blocks[0].text == "é"
    assert parsed("é\r\nx".encode("utf-16"), 'text/plain; charset="utf-16"').blocks[0].text == "é\nx"
    assert parsed("\ufeffé\rx".encode()).blocks[0].text == "é\nx"


def test_an_event_s_string_is_unicode_whatever_charset_it_names() -> None:
    """The charset describes bytes; a string in an event was decoded long ago."""
    assert parsed("é", "text/plain; charset=latin-1").blocks[0].text == "é"


@pytest.mark.parametrize(
    "line", ["# " + " " * 200_000 + "x", "|" * 200_000, "`" * 200_000, "-" * 200_000 + "x"]
)
def test_hostile_markdown_lines_cost_linear_time(line: str) -> None:
    """Lines made to send patterns backtracking are read at once (the test's own time limit is the judge)."""
    assert parsed(f"text\n\n{line}\nend", "text/markdown").blocks

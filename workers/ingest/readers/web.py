"""HTML comes in as text and leaves as blocks: headings, prose, code and tables, read as a stream.

A stream and not a tree: the tree of 50 MB of HTML takes gigabytes, converters of trees recurse, and Python's tree
builder nests what HTML lets one leave open (`<li>a<li>b`). Nothing is fetched; of a link the text is kept, of an image
the alternative text. Entities of an internal DTD are never expanded.
"""

from __future__ import annotations

from html.parser import HTMLParser

from schemas.errors import Unreadable
from workers.ingest.parsed import MAX_DEPTH, Builder, Parsed

_SILENT = frozenset(
    [
        "script",
        "style",
        "template",
        "svg",
        "math",
        "iframe",
        "object",
        "noscript",
        "canvas",
        "audio",
        "video",
        "select",
    ]
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_TABLE_PARTS = frozenset(["table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption"])
_BREAKS = _TABLE_PARTS | frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hgroup",
        "html",
        "legend",
        "li",
        "main",
        "menu",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "ul",
    ]
)
_CONTAINERS = frozenset(["div", "td", "th", "li", "blockquote", "section", "article"])
# What an opening tag closes when its author left it open, unless a wall stands between (HTML standard §13.1.2.4).
_CLOSES = {
    "li": ({"li"}, {"ul", "ol", "menu"}),
    "dd": ({"dd", "dt"}, {"dl"}),
    "dt": ({"dd", "dt"}, {"dl"}),
    "tr": ({"tr"}, {"table"}),
    "td": ({"td", "th"}, {"tr", "table"}),
    "th": ({"td", "th"}, {"tr", "table"}),
    "tbody": ({"thead", "tbody", "tfoot"}, {"table"}),
    "tfoot": ({"thead", "tbody", "tfoot"}, {"table"}),
}
_CLOSES_PARAGRAPH = ({"p"}, _CONTAINERS)
_LINE_BREAK = "\x00"
"""Stands for `<br>`; text with a NUL never gets here."""
_WIDE_CELL = 500
"""A table with a longer cell was made for layout; its cells become prose."""


def read_html(text: str) -> Parsed:
    """Read an HTML document.

    Raises:
        Unreadable: its elements are nested deeper than `MAX_DEPTH`, or it holds no text.
    """
    reader = _Html()
    reader.feed(text)
    reader.close()
    return reader.end()


class _Html(HTMLParser):
    """Keeps the open structural elements, and the text since the last break between blocks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._builder = Builder()
        self._title: list[str] = []
        self._in_title = False
        self._open: list[str] = []
        self._silent = 0
        self._text: list[str] = []
        self._rows: list[list[str]] | None = None
        self._bullet = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        if tag == "title":
            self._in_title = not self._title
        elif tag == "br":
            self._text.append(_LINE_BREAK)
        elif tag == "img":
            self._text.append(f" {dict(attrs).get('alt') or ''} ")
        elif tag == "hr":
            self._break()
        elif tag in _SILENT:
            self._push(tag)
        elif tag in _BREAKS or tag in _HEADINGS:
            self._close_what_was_left_open(tag)
            self._break()
            self._begin(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close an element and what was left open in it; a stray tag inside a cell does not end the table."""
        if tag == "title":
            self._in_title = False
            return
        for at in range(len(self._open) - 1, -1, -1):
            if self._open[at] == tag:
                self._close_down_to(at)
                return
            if self._open[at] in {"td", "th"} and tag not in _TABLE_PARTS:
                return

    def handle_data(self, data: str) -> None:
        """Take text."""
        if self._in_title:
            self._title.append(data)
        elif not self._silent:
            self._text.append(data)

    def end(self) -> Parsed:
        """Close what the document left open."""
        self._close_down_to(0)
        return self._builder.parsed(" ".join("".join(self._title).split())[:1000] or None)

    def _push(self, tag: str) -> None:
        self._open.append(tag)
        self._silent += tag in _SILENT
        if len(self._open) > MAX_DEPTH:
            raise Unreadable(f"the HTML is nested deeper than {MAX_DEPTH} levels")

    def _begin(self, tag: str) -> None:
        if tag == "table" and self._rows is None:
            self._rows = []
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag == "li":
            depth = sum(open_tag in {"ul", "ol"} for open_tag in self._open)
            self._bullet = "  " * (depth - 1) + "- "
        self._push(tag)

    def _close_what_was_left_open(self, tag: str) -> None:
        closed, walls = _CLOSES.get(tag, _CLOSES_PARAGRAPH)
        for at in range(len(self._open) - 1, -1, -1):
            if self._open[at] in walls:
                return
            if self._open[at] in closed:
                self._close_down_to(at)
                return

    def _close_down_to(self, at: int) -> None:
        while len(self._open) > at:
            self._break()
            tag = self._open.pop()
            self._silent -= tag in _SILENT
            if tag == "table" and "table" not in self._open:
                self._end_table()
        self._break()

    def _break(self) -> None:
        """End a run of text: it becomes a cell, a heading, code or a paragraph."""
        raw = "".join(self._text)
        self._text.clear()
        lines = [" ".join(line.split()) for line in raw.split(_LINE_BREAK)]
        text = "\n".join(filter(None, lines))
        if not text:
            return
        tag = next((tag for tag in reversed(self._open) if tag in _HEADINGS or tag == "pre"), "")
        if self._rows is not None:
            self._cell(text.replace("\n", " "))
        elif tag == "pre":
            code = raw.replace(_LINE_BREAK, "\n").strip("\n").rstrip()
            self._builder.code(f"```\n{code}\n```")
        elif tag:
            self._builder.heading(_HEADINGS[tag], text.replace("\n", " "))
        else:
            self._builder.prose(self._bullet + text, tight=bool(self._bullet))
        self._bullet = ""

    def _cell(self, text: str) -> None:
        assert self._rows is not None
        if not self._rows:
            self._rows.append([])
        self._rows[-1].append(text)

    def _end_table(self) -> None:
        rows = [row for row in self._rows or () if row]
        self._rows = None
        widest = max((len(row) for row in rows), default=0)
        if widest <= 1 or any(len(cell) > _WIDE_CELL for row in rows for cell in row):
            for row in rows:
                self._builder.prose("\n\n".join(row))
            return
        lines = [" | ".join(cell.replace("|", "/") for cell in row) for row in rows]
        lines.insert(1, " | ".join(["---"] * widest))
        self._builder.table(lines, head=2)

"""Markdown comes in line by line; headings, code and tables go out as blocks of their own, prose as it stands.

The text is kept as it was written: links and images stay text, and nothing is rendered. Only the block structure is
read (CommonMark §4 and GitHub's tables), which one pass over the lines can do. No pattern here has two neighbours
that can match the same characters, so that a hostile line costs linear time.
"""

from __future__ import annotations

import re

from workers.ingest.parsed import Builder, Parsed

_FENCE = re.compile(r"^[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
_ATX = re.compile(r"^ {0,3}(#{1,6})(?=[ \t]|$)")
_SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
_NO_HEADING = re.compile(r"^ {0,3}(?:[-*+>|]|\d{1,9}[.)])")
_RULE_CELL = re.compile(r"^:?-+:?$")
_RULE_CHARACTERS = frozenset("|:- \t")
_LONGEST_FRONT_MATTER = 20_000


def read_markdown(text: str) -> Parsed:
    """Read Markdown; the title is the front matter's, otherwise the first top-level heading."""
    front, text = _front_matter(text)
    builder = Builder()
    builder.prose(front)
    _Lines(text, builder).read()
    titles = (line[6:].strip().strip("\"'") for line in front.split("\n") if line.startswith("title:"))
    return builder.parsed(next(titles, None))


def _front_matter(text: str) -> tuple[str, str]:
    """Split off a YAML front matter; it stays text, since its keys are worth finding."""
    end = text.find("\n---\n", 3, _LONGEST_FRONT_MATTER) if text.startswith("---\n") else -1
    return ("", text) if end < 0 else (text[4:end], text[end + 5 :])


def _unclosed(text: str) -> str:
    """A heading's text without the hashes that may close it."""
    text = text.strip()
    bare = text.rstrip("#")
    return bare.rstrip() if not bare or bare[-1] in " \t" else text


class _Lines:
    """One pass over the lines."""

    def __init__(self, text: str, builder: Builder) -> None:
        self._lines = text.split("\n")
        self._at = 0
        self._builder = builder
        self._prose: list[str] = []

    def read(self) -> None:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if fence := _FENCE.match(line):
                self._code(fence[1])
            elif atx := _ATX.match(line):
                self._at += 1
                self._heading(len(atx[1]), _unclosed(line[atx.end() :]))
            elif self._table_starts():
                self._table()
            elif self._underlines(line):
                self._at += 1
                self._heading(1 if "=" in line else 2, self._prose.pop().strip())
            else:
                self._prose.append(line)
                self._at += 1
        self._flush()

    def _flush(self) -> None:
        self._builder.prose("\n".join(self._prose).strip("\n"))
        self._prose.clear()

    def _heading(self, level: int, title: str) -> None:
        self._flush()
        if title:
            self._builder.heading(level, title)

    def _underlines(self, line: str) -> bool:
        """Whether the line makes a heading of the line above, which has to be a paragraph of one line."""
        if not self._prose or not _SETEXT.match(line):
            return False
        above = self._prose[-1]
        alone = len(self._prose) == 1 or not self._prose[-2].strip()
        return alone and bool(above.strip()) and not _NO_HEADING.match(above)

    def _code(self, fence: str) -> None:
        self._flush()
        closing = re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")
        start = self._at
        self._at += 1
        while self._at < len(self._lines) and not closing.match(self._lines[self._at]):
            self._at += 1
        self._at += 1
        self._builder.code("\n".join(self._lines[start : self._at]))

    def _table_starts(self) -> bool:
        if self._at + 1 >= len(self._lines) or "|" not in self._lines[self._at]:
            return False
        below = self._lines[self._at + 1]
        if "|" not in below or not _RULE_CHARACTERS.issuperset(below):
            return False
        return all(_RULE_CELL.match(cell.strip()) for cell in below.strip().strip("|").split("|"))

    def _table(self) -> None:
        self._flush()
        start = self._at
        self._at += 2
        while self._at < len(self._lines) and "|" in self._lines[self._at]:
            self._at += 1
        self._builder.table(self._lines[start : self._at], head=2)

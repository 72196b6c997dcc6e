"""What a reader found in a document passes through here as blocks, on its way to the chunker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import Unreadable

MAX_INPUT = 50_000_000
"""Bytes of one document."""
MIN_INFLATED = 10_000_000
INFLATION = 10
MAX_PAGES = 2_000
MAX_DEPTH = 64
LONGEST_HEADING = 300
"""Characters of a heading that go into the path; the text keeps all of it."""


class Kind(StrEnum):
    """What a block is; the chunker keeps all but prose whole where they fit."""

    PROSE = "prose"
    HEADING = "heading"
    CODE = "code"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Block:
    """A run of text of one kind, under one heading, on one page."""

    kind: Kind
    text: str
    heading: tuple[str, ...] = ()
    """The headings above it, outermost first; a heading's own text is the last."""
    page: int | None = None
    """Page number, from 1; None where the format has no pages."""
    level: int = 0
    """1 (outermost) to 6 for a heading, otherwise 0."""
    head: str = ""
    """What is repeated above each part when the block is split: a table's header."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document as its reader saw it."""

    blocks: tuple[Block, ...]
    title: str | None = None


def inflated_limit(size: int) -> int:
    """How many bytes a document of ``size`` bytes may become while it is read."""
    return max(MIN_INFLATED, INFLATION * size)


class Builder:
    """Collects blocks while a document is read from top to bottom, and knows the headings in force."""

    def __init__(self) -> None:
        self.page: int | None = None
        self._blocks: list[Block] = []
        self._prose: list[str] = []
        self._open: list[tuple[int, str]] = []

    def prose(self, text: str, *, tight: bool = False) -> None:
        """Add prose; it stands alone after a blank line, or tight below the prose before it."""
        if text.strip():
            self._prose += ("\n" if tight else "\n\n", text)

    def enter(self, level: int, title: str) -> None:
        """Open a heading without a block of its own; it closes those of its level and below."""
        self._flush()
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, title[:LONGEST_HEADING]))

    def heading(self, level: int, title: str) -> None:
        """Add a heading of level 1 to 6."""
        self.enter(level, title)
        self._add(Kind.HEADING, f"{'#' * level} {title}", level=level)

    def code(self, text: str) -> None:
        """Add a block of code, with its fences."""
        self._flush()
        self._add(Kind.CODE, text)

    def table(self, lines: list[str], head: int) -> None:
        """Add a table; its first ``head`` lines are repeated when it is split."""
        self._flush()
        self._add(Kind.TABLE, "\n".join(lines), head="\n".join(lines[:head]))

    def turn_to(self, page: int) -> None:
        """Go to a page."""
        self._flush()
        self.page = page

    def parsed(self, title: str | None = None) -> Parsed:
        """What was collected; the title is the one given, otherwise the first outermost heading.

        Raises:
            Unreadable: not a word was found.
        """
        self._flush()
        if not any(block.text.strip() for block in self._blocks):
            raise Unreadable("the document holds no text")
        first = next((block.heading[-1] for block in self._blocks if block.level == 1), None)
        return Parsed(tuple(self._blocks), title or first)

    def _flush(self) -> None:
        text = "".join(self._prose[1:]).strip("\n")
        self._prose.clear()
        if text:
            self._add(Kind.PROSE, text)

    def _add(self, kind: Kind, text: str, *, level: int = 0, head: str = "") -> None:
        path = tuple(title for _, title in self._open)
        self._blocks.append(Block(kind, text, path, self.page, level, head))

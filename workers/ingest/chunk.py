"""A document's blocks come in, and its chunks go out: text of a bounded size, with heading, page and content hash.

The same blocks and settings always give the same chunks. Time and memory grow with the text and not with the length
of its lines (see `flow`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

from schemas.errors import Misconfigured
from workers.ingest.cut import Place
from workers.ingest.flow import Flow
from workers.ingest.parsed import Block, Kind
from workers.ingest.tokens import UNIT, tokens, weigh

MIN_SIZE, MAX_SIZE = 32, 2048
"""At 2048 estimated tokens no text reaches the 8,192 that the model API takes (see `workers.ingest.tokens`)."""


class Strategy(StrEnum):
    """How a collection's documents are cut."""

    STRUCTURE = "structure"
    """A chunk ends where the next heading begins, unless it is still very small."""
    FLAT = "flat"
    """Headings are text like any other: chunks are as full as paragraphs allow."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut; estimated tokens.

    256 is the most a chunk holds, and about 175 is what it holds on average: a passage of one to three paragraphs,
    which answers one question without diluting its vector, and eight of which make a prompt of 2,000 tokens. An
    overlap of 32 is a sentence or two, so that a sentence at a cut is found from both sides.
    """

    strategy: Strategy = Strategy.STRUCTURE
    size: int = 256
    overlap: int = 32

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Chunking:
        """Read a collection's settings: ``chunking``: {``strategy``, ``size``, ``overlap``}, all optional.

        Raises:
            Misconfigured: names the setting.
        """
        given = settings.get("chunking") or {}
        try:
            strategy = Strategy(given.get("strategy", cls().strategy))
            size, overlap = int(given.get("size", cls().size)), int(given.get("overlap", cls().overlap))
        except (AttributeError, TypeError, ValueError):
            raise Misconfigured(
                "the collection's chunking is not understood",
                field="chunking",
                fix="strategy is structure or flat; size and overlap are whole numbers",
            ) from None
        if not MIN_SIZE <= size <= MAX_SIZE:
            raise Misconfigured(f"a chunk's size is {MIN_SIZE} to {MAX_SIZE} tokens", field="chunking.size")
        if not 0 <= overlap <= size // 4:
            raise Misconfigured("the overlap is at most a quarter of the size", field="chunking.overlap")
        return cls(strategy, size, overlap)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage that is embedded, searched and cited."""

    position: int
    text: str
    heading: str | None
    page: int | None
    tokens: int
    """Estimated."""
    sha256: bytes
    """Of the text in UTF-8: with the embedding space, the address of its vector."""


def chunk(blocks: Sequence[Block], settings: Chunking) -> Iterator[Chunk]:
    """Cut blocks into chunks."""
    whole = _whole(blocks, settings)
    return _Chunker(blocks, settings).chunks() if whole is None else iter([whole])


def _whole(blocks: Sequence[Block], settings: Chunking) -> Chunk | None:
    """A small document as its only chunk, at a fraction of what looking for places to cut would cost."""
    core = settings.size - settings.overlap
    if (
        any(block.kind is Kind.HEADING for block in blocks[1:])
        or sum(len(block.text) for block in blocks) > core * 8
    ):
        return None
    text = "\n\n".join(block.text for block in blocks).strip("\n").rstrip()
    weight = weigh(text)
    if not text.strip() or weight > core * UNIT:
        return None
    heading = " > ".join(blocks[0].heading) or None
    return Chunk(0, text, heading, blocks[0].page, tokens(weight), sha256(text.encode()).digest())


class _Chunker:
    """Walks once through the text."""

    def __init__(self, blocks: Sequence[Block], settings: Chunking) -> None:
        self._overlap_weight = settings.overlap * UNIT
        self._core = (settings.size - settings.overlap) * UNIT
        """What a chunk holds besides the overlap: always the same, so that a cut depends on no earlier one."""
        self._size = settings.size * UNIT
        by_heading = settings.strategy is Strategy.STRUCTURE
        whole = settings.size - settings.overlap
        self._flow = Flow(blocks, whole=whole, reach=settings.size * 5 // 4, by_heading=by_heading)

    def chunks(self) -> Iterator[Chunk]:
        """The chunks in the order of the text."""
        flow = self._flow
        at = before = position = 0
        while at < len(flow.text):
            flow.look_at(at)
            head, most = self._head(at)
            above = self._overlap(before, at)
            end = self._cut(at, most)
            if flow.text[at:end].strip():
                padded = flow.text[above:end].rstrip()
                text = padded.lstrip("\n")
                first = above + len(padded) - len(text)
                block = flow.blocks[flow.block(at)]
                yield Chunk(
                    position=position,
                    text=head + text,
                    heading=" > ".join(block.heading) or None,
                    page=block.page,
                    tokens=tokens(weigh(head) + flow.weight(first, first + len(text))),
                    sha256=sha256((head + text).encode()).digest(),
                )
                position += 1
            before, at = at, end

    def _head(self, at: int) -> tuple[str, int]:
        """The header of the table in the middle of which a chunk begins, and the weight that it leaves."""
        index = self._flow.block(at)
        head, start = self._flow.blocks[index].head, self._flow.starts[index]
        if head and at > start + len(head):
            left = self._size - weigh(head + "\n")
            if left >= self._size * 3 // 4:
                return head + "\n", left
        return "", self._core

    def _overlap(self, before: int, at: int) -> int:
        """Where the chunk whose own text begins at ``at`` begins: a little earlier, in the same prose only."""
        flow = self._flow
        index = flow.block(at)
        kind, inside = flow.blocks[index].kind, at > flow.starts[index]
        if kind is Kind.HEADING or (inside and kind is not Kind.PROSE):
            return at
        index = index if inside else index - 1
        if index < 0 or flow.blocks[index].kind is not Kind.PROSE or not self._overlap_weight:
            return at
        first = max(before, flow.starts[index], flow.back(at, self._overlap_weight))
        if first >= at:
            return at
        found = flow.first(first, at - 1, Place.SENTENCE)
        if found is None:
            found = flow.first(first, at - 1, Place.WORD)
        if found is None:
            found = flow.first(first, at - 1, Place.CHARACTER)
        return at if found is None else found

    def _cut(self, at: int, most: int) -> int:
        """Where the chunk that begins at ``at`` ends: at most the weight ``most`` further."""
        flow = self._flow
        last = flow.forward(at, most)
        heading = flow.heading(min(flow.forward(at, most // 4) + 1, last), last)
        if heading is not None:
            return heading
        if last >= len(flow.text):
            return last
        if flow.forward(last, most // 4) >= len(flow.text):
            # Leave enough for a chunk of its own, instead of a few words.
            last = flow.back(len(flow.text), most // 4)
        last = max(last, at + 1)
        place, score = flow.choose(min(flow.forward(at, most * 2 // 5) + 1, last), last)
        if score >= Place.CHARACTER:
            return place
        # What is kept whole fills the window: cut before it, below a heading only if there is no other way.
        return flow.last(at + 1, last) or last

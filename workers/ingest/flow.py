"""A document's blocks become one long text here, with a weight and a score for each of its places, for the chunker.

Weights and scores are computed for a stretch of some ten thousand characters at a time, and kept until the chunker has
passed it: a cut costs a few look-ups, and a document of 50 MB needs no more memory than its text and one stretch.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from workers.ingest.cut import CONTEXT, Place, by_lines, rank, score
from workers.ingest.parsed import Block, Kind
from workers.ingest.tokens import code_points, estimate, weights

_STRETCH = 1 << 15
_LIGHTEST = 16
"""No token is estimated for more than so many characters."""


class Flow:
    """The blocks as one text, with a blank line between two of them. Positions are characters of that text."""

    def __init__(self, blocks: Sequence[Block], *, whole: int, reach: int, by_heading: bool) -> None:
        """Join the blocks.

        Args:
            blocks: in the order of the document.
            whole: code, tables and headings of up to so many tokens are never cut.
            reach: tokens before and behind a position that the chunker looks at.
            by_heading: whether a heading is a better place to cut than a paragraph.
        """
        self.blocks = blocks
        self.text = "\n\n".join(block.text for block in blocks)
        self.starts: list[int] = []
        at = 0
        for block in blocks:
            self.starts.append(at)
            at += len(block.text) + 2
        self._headings = [
            (start, block.level)
            for index, (start, block) in enumerate(zip(self.starts, blocks, strict=True))
            if by_heading
            and block.kind is Kind.HEADING
            and index
            and blocks[index - 1].kind is not Kind.HEADING
        ]
        self._reach = reach * _LIGHTEST + CONTEXT
        self._whole = [
            block.kind is not Kind.PROSE
            and len(block.text) <= whole * _LIGHTEST
            and estimate(block.text) <= whole
            for block in blocks
        ]
        self._first = self._last = 0
        self.look_at(0)

    def look_at(self, at: int) -> None:
        """Make ready what is around a position."""
        behind = min(at + self._reach, len(self.text))
        if self._last >= behind and self._first <= max(at - self._reach, 0) and self._last:
            return
        self._first = max(at - self._reach, 0)
        self._last = min(behind + _STRETCH, len(self.text))
        points = code_points(self.text[self._first : self._last])
        self._sums = np.zeros(len(points) + 1, dtype=np.int64)
        np.cumsum(weights(points), dtype=np.int64, out=self._sums[1:])
        self._scores = score(points)
        self._apply_blocks()
        self._ranks = rank(points, self._scores)

    def block(self, at: int) -> int:
        """The index of the block that a position is in, or of the one before the blank line that it is in."""
        return bisect_right(self.starts, at) - 1

    def weight(self, first: int, last: int) -> int:
        """The weight of a part of the text."""
        return int(self._sums[last - self._first] - self._sums[first - self._first])

    def forward(self, at: int, weight: int) -> int:
        """The furthest position that is at most ``weight`` behind."""
        base = self._sums[at - self._first] + weight
        return self._first + int(self._sums.searchsorted(base, side="right")) - 1

    def back(self, at: int, weight: int) -> int:
        """The earliest position that is at most ``weight`` before."""
        base = self._sums[at - self._first] - weight
        return self._first + int(self._sums.searchsorted(base, side="left"))

    def heading(self, first: int, last: int) -> int | None:
        """The first of the outermost headings that begin in [first, last]."""
        found = self._headings[
            bisect_left(self._headings, (first, 0)) : bisect_right(self._headings, (last, 9))
        ]
        return min(found, key=lambda heading: (heading[1], heading[0]))[0] if found else None

    def choose(self, first: int, last: int) -> tuple[int, int]:
        """The place in [first, last] with the best score, and the score; content decides among equals."""
        ranks = self._ranks[first - self._first : last - self._first + 1]
        at = int(ranks.argmax())
        return first + at, int(self._scores[first - self._first + at])

    def first(self, first: int, last: int, least: int) -> int | None:
        """The first place in [first, last] whose score is at least ``least``."""
        good = self._scores[first - self._first : last - self._first + 1] >= least
        at = int(good.argmax())
        return first + at if good[at] else None

    def last(self, first: int, last: int) -> int | None:
        """The last of the places in [first, last] that share the best score; None when all are forbidden."""
        scores = self._scores[first - self._first : last - self._first + 1]
        highest = scores.max()
        return first + int(np.flatnonzero(scores == highest)[-1]) if highest else None

    def _apply_blocks(self) -> None:
        """Let the blocks overrule what the characters say."""
        scores, size = self._scores, len(self._scores)
        for index in range(self.block(self._first), len(self.blocks)):
            block = self.blocks[index]
            start = self.starts[index] - self._first
            if start >= size:
                break
            end = start + len(block.text)
            inside = slice(max(start + 1, 0), max(end, 0))
            if self._whole[index]:
                scores[inside] = Place.FORBIDDEN
            elif block.kind is not Kind.PROSE:
                scores[inside] = by_lines(scores[inside])
            if index < len(self.blocks) - 1:
                scores[max(end, 0) : max(end + 2, 0)] = Place.FORBIDDEN
            if start > 0:
                scores[start] = self._before(index)

    def _before(self, index: int) -> int:
        return Place.LAST_RESORT if self.blocks[index - 1].kind is Kind.HEADING else Place.PARAGRAPH

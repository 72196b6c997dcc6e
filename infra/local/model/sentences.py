"""The text of a passage passes through here and goes on, cut into quotable sentences, to the answerer."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BLOCK = re.compile(r"\n[ \t]*\n|\n(?=[ \t]*(?:[-*+•]|\d+[.)]|\[\d+\])[ \t]+)|\n(?=#{1,6} )|(?<=\n)(?=\|)")
"""Blank lines, list items, headings and table rows end a sentence, whatever stands before them."""
_FENCED = re.compile(r"^[ \t]*(```|~~~)[^\n]*\n.*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
"""A fenced block of code holds no sentences; one that is cut off ends with its passage."""
_HEADING = re.compile(r"^[ \t]*(?:#{1,6} [^\n]+|[^\n]+\n[ \t]*([=*~^\"#-])\1{2,})[ \t]*(?:\n|$)")
"""A line marked with #, or one underlined with a row of the same sign."""
_STOP = re.compile(r"[.!?…][\"'”’)\]*_`]*(?=\s+[\"'“‘(\[*_`]*[A-Z0-9À-ÖØ-Þ\u0400-\u042f])|[。！？]")  # noqa: RUF001 - those are the marks.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|approx|no|nos|fig|sec|ch|pp?|vol|al|dr|mrs?|ms|prof|st|inc|ltd|co)|\b[A-Z])\.$",
    re.IGNORECASE,
)
_MARK = re.compile(r"^(?:[-*+•]|\d+[.)]|>|\[\d+\])[ \t]+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A quotable span of a passage: `text` is exactly what stands there, under the heading `under`."""

    text: str
    under: str = ""
    heading: bool = False


def split_sentences(text: str) -> list[Sentence]:
    """Cut a text into spans that can be quoted as they stand, in their order."""
    found: list[Sentence] = []
    under = ""
    for block in _blocks(text):
        body = block
        heading = _HEADING.match(block)
        if heading is not None:
            under = heading.group().split("\n", 1)[0].strip(" \t#")
            _keep(found, Sentence(text=under, heading=True))
            body = block[heading.end() :]
        for span in _spans(body):
            _keep(found, Sentence(text=span, under=under))
    return found


def _blocks(text: str) -> list[str]:
    blocks: list[str] = []
    begin = 0
    for fenced in [*_FENCED.finditer(text), None]:
        end = len(text) if fenced is None else fenced.start()
        start = begin
        for border in _BLOCK.finditer(text, begin, end):
            blocks.append(text[start : border.start()])
            start = border.end()
        blocks.append(text[start:end])
        begin = end if fenced is None else fenced.end()
    return blocks


def _spans(block: str) -> list[str]:
    """The sentences of a block, without a list mark before them and space around them."""
    spans: list[str] = []
    start = 0
    for stop in _STOP.finditer(block):
        if not _ABBREVIATION.search(block, max(0, stop.start() - 8), stop.start() + 1):
            spans.append(block[start : stop.end()])
            start = stop.end()
    return [_MARK.sub("", span.strip()).strip() for span in [*spans, block[start:]]]


def _keep(found: list[Sentence], sentence: Sentence) -> None:
    if _LETTERS.search(sentence.text):
        found.append(sentence)

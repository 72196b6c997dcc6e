"""An answer with markers such as [2] passes through here; markers that prove nothing are cut out and reported.

Each marker must name a supplied passage, and the claim before it must be supported there (`workers.answer.quotes`).
What remains becomes citations: the passage, and the span of it that supports the claim.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.retrieval import Part, Passage
from workers.answer.quotes import Support, find_quote, find_support, split_sentences

UNKNOWN_PASSAGE = "no such passage was supplied"
QUOTE_NOT_FOUND = "the quoted words do not stand in the passage"
NOT_SUPPORTED = "the passage does not say this"

_MARKERS = re.compile(r"[ \t]*((?:\[\d{1,4}(?:\s*,\s*\d{1,4})*\][ \t]*)+)")
_NUMBER = re.compile(r"\d+")
_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»\n]{12,600})[\"”“»]")
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


@dataclass(frozen=True, slots=True)
class Citation:
    """A claim's support.

    Attributes:
        marker: the number that stands for the passage in the answer.
    """

    marker: int
    passage: Passage
    quote: str
    strength: float

    def as_dict(self) -> dict[str, Any]:
        """The citation as it is stored and sent: with the chunk in which the quote stands."""
        chunk, quote = place(self.passage, self.quote)
        return {
            "marker": self.marker,
            "document_id": self.passage.document_id,
            "chunk_id": str(chunk.chunk_id),
            "collection": self.passage.collection,
            "quote": quote,
            "heading": chunk.heading,
            "page": chunk.page,
            "title": self.passage.title,
            "score": round(self.passage.score, 6),
        }


def place(passage: Passage, quote: str) -> tuple[Part, str]:
    """The chunk in which a span of a passage stands, and what of the span stands there: the longest piece."""
    own = Part(passage.chunk_id, passage.position, passage.text, passage.heading, passage.page)
    for span in passage.spans:
        if quote in span.part.text:
            return span.part, quote
    begin = passage.text.find(quote)
    end = begin + len(quote)
    borders = [*(span.start for span in passage.spans), len(passage.text)]
    pieces = [
        (passage.text[max(begin, span.start) : min(end, after)].strip(), span.part)
        for span, after in zip(passage.spans, borders[1:], strict=True)
    ]
    longest, chunk = max(pieces, key=lambda piece: len(piece[0]), default=(quote, own))
    return chunk, longest


@dataclass(slots=True)
class Verified:
    """An answer whose markers were checked.

    Attributes:
        rejected: marker and reason of each that was cut out.
    """

    text: str = ""
    citations: list[Citation] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)


def verify(answer: str, passages: Sequence[Passage]) -> Verified:
    """Check every marker of an answer.

    Args:
        answer: as the model wrote it.
        passages: what was supplied; [1] is the first.
    """
    out = Verified()
    parts: list[str] = []
    position = 0
    for match in _MARKERS.finditer(answer):
        before = answer[position : match.start()]
        parts.append(before)
        claim = _claim(answer[: match.start()])
        kept = [number for number in _numbers(match[1]) if _check(number, claim, passages, out)]
        if kept:
            trailing = match[0][len(match[0].rstrip(" \t")) :]
            parts.append(" " + "".join(f"[{number}]" for number in kept) + trailing)
        elif match[0][-1:].isspace():
            parts.append(" ")
        position = match.end()
    parts.append(answer[position:])
    out.text = "".join(parts).strip()
    return out


def cite(number: int, quote: str, passages: Sequence[Passage], out: Verified) -> bool:
    """Check a citation that a structured answer makes: a passage's number and words quoted from it."""
    return _check(number, f'"{quote}"', passages, out)


def _check(number: int, claim: str, passages: Sequence[Passage], out: Verified) -> bool:
    if not 1 <= number <= len(passages):
        out.rejected.append({"marker": number, "reason": UNKNOWN_PASSAGE})
        return False
    passage = passages[number - 1]
    support, reason = _support(claim, passage.text)
    if support is None:
        out.rejected.append({"marker": number, "reason": reason})
        return False
    known = any(one.marker == number and one.quote == support.quote for one in out.citations)
    if not known:
        out.citations.append(Citation(number, passage, support.quote, support.strength))
    return True


def _support(claim: str, text: str) -> tuple[Support | None, str]:
    quotes = _QUOTED.findall(claim)
    for quote in quotes:
        found = find_quote(quote, text)
        if found is not None:
            return found, ""
    if quotes:
        return None, QUOTE_NOT_FOUND
    return find_support(claim, text), NOT_SUPPORTED


def _claim(before: str) -> str:
    """The sentence that a marker closes, without markers of its own.

    A marker behind the full stop belongs to the sentence before it.
    """
    plain = _MARKERS.sub(" ", before)
    sentences = [one for one in split_sentences(plain) if one.strip()]
    return _LIST_MARK.sub("", sentences[-1].strip()) if sentences else ""


def _numbers(group: str) -> list[int]:
    return list(dict.fromkeys(int(number) for number in _NUMBER.findall(group)))

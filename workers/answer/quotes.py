"""A claim and a passage pass through here and leave as the span of the passage that supports the claim, if there is one.

A span that somebody quotes must stand in the passage: exactly, but for case, spaces and typographic marks, or, with at
least QUOTED of its words in the passage's order, nearly. A claim that quotes nothing is supported by the one or two
sentences that hold the most of its words, if they hold SUPPORTED of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

QUOTED = 0.85
SUPPORTED = 0.5
LONGEST_QUOTE = 600
"""Characters; a longer span is cut at a word."""

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"'”’)\]]*\s+|\n\s*\n|\n(?=[-*•#|]|\d+[.)])")  # noqa: RUF001 - those are the marks
_COMMON = frozenset(
    _WORD.findall(
        "a about all also an and any are as at be been but by can could did do does for from had has have he her his how "
        "i if in into is it its may more most must no not of on one or our out over she so some such than that the their "
        "them then there these they this to was we were what when where which while who will with would you your"
    )
)


@dataclass(frozen=True, slots=True)
class Support:
    """A span of a passage.

    Attributes:
        quote: exactly as it stands there.
        strength: 0 to 1; 1 when the claim stands there word for word.
    """

    quote: str
    strength: float


def find_quote(quote: str, passage: str) -> Support | None:
    """Where a quoted span stands in a passage."""
    wanted = [word.casefold() for word in _WORD.findall(quote)]
    spans = list(_WORD.finditer(passage))
    words = [span[0].casefold() for span in spans]
    if not wanted or len(wanted) > len(words) + 2:
        return None
    size = len(wanted)
    for start in range(len(words) - size + 1):
        if words[start] == wanted[0] and words[start : start + size] == wanted:
            return Support(_slice(passage, spans, start, start + size), 1.0)
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    matcher.set_seq1(words)
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    if not blocks:
        return None
    anchor = max(blocks, key=lambda block: block.size)
    start = max(0, anchor.a - anchor.b)
    end = min(len(words), start + size)
    matcher.set_seq1(words[start:end])
    if matcher.ratio() < QUOTED:
        return None
    shared = [block for block in matcher.get_matching_blocks() if block.size]
    first, last = start + shared[0].a, start + shared[-1].a + shared[-1].size
    return Support(_slice(passage, spans, first, last), matcher.ratio())


def find_support(claim: str, passage: str) -> Support | None:
    """The one or two sentences of a passage that hold the most of a claim's words."""
    whole = find_quote(claim, passage)
    if whole is not None:
        return whole
    wanted = _content(claim)
    if not wanted:
        return None
    sentences = [part for part in split_sentences(passage) if part.strip()]
    best: Support | None = None
    for index, sentence in enumerate(sentences):
        for span in (sentence, "".join(sentences[index : index + 2])):
            strength = len(wanted & _content(span)) / len(wanted)
            quote = _short(span.strip())
            # Of two spans that say as much, the shorter one proves it better.
            if best is None or (strength, -len(quote)) > (best.strength, -len(best.quote)):
                best = Support(quote, strength)
    return best if best is not None and best.strength >= SUPPORTED else None


def split_sentences(text: str) -> list[str]:
    """A text as its sentences and list items; joined, they are the text."""
    borders = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(borders) if end > start]


def _content(text: str) -> set[str]:
    words = (word.casefold() for word in _WORD.findall(text))
    return {_stem(word) for word in words if word not in _COMMON}


def _stem(word: str) -> str:
    """Cut the commonest endings, so that a claim may speak in another number or tense than its source."""
    for ending in ("ing", "ed", "es", "s", "en", "er"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def _slice(passage: str, spans: list[re.Match[str]], start: int, end: int) -> str:
    last = spans[end - 1].end()
    # A full stop or a closing mark belongs to the span.
    while last < len(passage) and passage[last] in '.!?)”"':
        last += 1
    return _short(passage[spans[start].start() : last])


def _short(text: str) -> str:
    if len(text) <= LONGEST_QUOTE:
        return text
    cut = text[:LONGEST_QUOTE]
    return cut[: cut.rfind(" ")] if " " in cut else cut

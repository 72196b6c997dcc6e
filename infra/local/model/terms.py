"""Questions and sentences pass through here and go on as weighted content terms, to be compared word by word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from infra.local.model.vectors import Encoder

_WORD = re.compile(r"\w+")
_STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be been before being between both but by can
    cannot could did do does doing done for from get gets give given had has have having he her here
    him his how i if in into is it its just kindly know let like may me might must my need no not of
    on one or our out over please question say says she should so some such tell than thank thanks
    that the their them then there these they this those to too under up us use used using very want
    was we were what when where whether which while who whom whose why will with would you your
    yours explain show describe mean means happen happens work works many much
    """.split()  # noqa: SIM905 - a hundred quoted words would fill a page
)
_ENDINGS = (
    "ations",
    "ation",
    "ingly",
    "ments",
    "ment",
    "ings",
    "ing",
    "edly",
    "ies",
    "ied",
    "ers",
    "er",
    "ed",
    "es",
    "ly",
    "s",
    "e",
)
_SHORTEST_STEM = 3


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Cut the commonest English endings; crude, and the same on both sides of a comparison."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word


def content_words(text: str) -> dict[str, str]:
    """Stem → the word it came from, without stop words, in order of appearance."""
    words = (word for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS)
    return {stem(word): word for word in words if len(word) > 1 or word.isdigit()}


def stems(texts: Iterable[str]) -> frozenset[str]:
    """All content stems of some texts."""
    return frozenset(s for text in texts for s in content_words(text))


class Question:
    """A question as terms with weights: how much a shared word counts.

    The weight of a word is the strength of its embedding, which is small for words that say little.
    """

    def __init__(self, text: str, encoder: Encoder) -> None:
        self.text = text
        self.vector = encoder.embed([text])[0]
        words = content_words(text)
        strengths = encoder.strength(list(words.values())) if words else ()
        self.weights = {s: float(weight) for s, weight in zip(words, strengths, strict=True)}
        self._total = sum(self.weights.values())

    def coverage(
        self,
        own: frozenset[str],
        heading: frozenset[str] = frozenset(),
        passage: frozenset[str] = frozenset(),
    ) -> float:
        """The weighted part, 0…1, of the question's terms that stand in a sentence or around it.

        A term in the sentence counts whole, one in its heading or title for 0.6, one elsewhere in its passage
        for 0.3.
        """
        if not self._total:
            return 0.0
        got = 0.0
        for term, weight in self.weights.items():
            if term in own:
                got += weight
            elif term in heading:
                got += 0.6 * weight
            elif term in passage:
                got += 0.3 * weight
        return got / self._total

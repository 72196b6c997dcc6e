"""A passage passes through here once and goes on, cut and embedded, to every question that is asked of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from infra.local.model.prompt import Passage
from infra.local.model.sentences import Sentence, split_sentences
from infra.local.model.terms import stems
from infra.local.model.vectors import Encoder, Vectors

KEPT_PASSAGES = 2048
"""How many read passages are remembered: about 15 KB each."""

_COMMAND = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:above|previous|prior|earlier|instructions?|prompt|rules)\b"
    r"|\b(?:system|developer) (?:prompt|message)\b|\byou (?:are now|must (?:now )?(?:answer|reply|respond|say|output))\b"
    r"|\b(?:reply|respond|answer) (?:only )?with\b|</?(?:system|assistant|user|instructions?)>",
    re.IGNORECASE | re.DOTALL,
)
"""Sentences that speak to a model instead of a reader. They are not obeyed anyway; they are not repeated either."""
_CODE = re.compile(r"::=|>>>|\bimport \w+\n|\bdef \w+\(|\bclass \w+[(:]")
_LIKE_A_MARKER = re.compile(r"\[\d+(?:, ?\d+)*\](?!$)")
_ASIDE = re.compile(
    r"(?:see also|for example|for instance|e\.g\.|note that|changed in|added in|new in)\b", re.IGNORECASE
)
_SCRAP, _SHORT = 3, 5
"""Below so many words a sentence is a scrap of one, or a short one."""
_LEAD = 5


@dataclass(frozen=True, slots=True)
class Quotable:
    """A sentence that may be quoted, with what does not depend on the question.

    `poor` says, from 0 upwards, how badly it would read as an answer.
    """

    sentence: Sentence
    own: frozenset[str]
    heading: frozenset[str]
    lead: frozenset[str]
    poor: float


@dataclass(frozen=True, slots=True)
class Reading:
    """A passage with its sentences. `vectors`: float32[len(quotable), 256]; `whole`: float32[1, 256]."""

    passage: Passage
    quotable: tuple[Quotable, ...]
    vectors: Vectors
    whole: Vectors
    words: frozenset[str]


class Reader:
    """Passages to readings; the last ones are remembered. Used from several threads."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.read = lru_cache(maxsize=KEPT_PASSAGES)(self._read)

    def _read(self, passage: Passage) -> Reading:
        sentences = [
            s for s in split_sentences(passage.text) if not s.heading and not _COMMAND.search(s.text)
        ]
        return Reading(
            passage=passage,
            quotable=tuple(_quotable(passage, sentence) for sentence in sentences),
            vectors=self.encoder.embed([sentence.text for sentence in sentences]),
            whole=self.encoder.embed([f"{passage.context} {passage.text}"]),
            words=stems([passage.context, passage.text]),
        )


def _quotable(passage: Passage, sentence: Sentence) -> Quotable:
    words = sentence.text.split()
    return Quotable(
        sentence=sentence,
        own=stems([sentence.text]),
        heading=stems([passage.context, sentence.under]),
        lead=stems(words[:_LEAD]),
        poor=_poor(sentence.text, words),
    )


def _poor(text: str, words: list[str]) -> float:
    """Fragments, code, asides, questions and introductions of a list make poor answers."""
    symbols = sum(1 for word in words if not any(letter.isalpha() for letter in word))
    return (
        (0.30 if len(words) < _SCRAP else 0.05 if len(words) < _SHORT else 0.0)
        + (0.30 if symbols > 0.3 * len(words) or _CODE.search(text) else 0.0)
        + (0.30 if _LIKE_A_MARKER.search(text) else 0.0)
        + (0.15 if _ASIDE.match(text) else 0.0)
        + (0.20 if text.endswith("?") else 0.0)
        + (0.15 if text.endswith(":") else 0.0)
        + (0.10 if text[-1].isalnum() else 0.0)
        + (0.10 if text[0].islower() else 0.0)
    )

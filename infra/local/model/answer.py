"""A question and its passages pass through here and go on as sentences quoted from them, or as "I don't know."."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.local.model.prompt import Example, Passage
from infra.local.model.reading import Reader, Reading
from infra.local.model.terms import Question
from infra.local.model.vectors import Encoder

UNKNOWN = "I don't know."

CLEAR = 0.55
"""A sentence this similar to the question (cosine) fits whatever words it uses."""
SIMILAR = 0.33
COVERED = 0.40
"""One that is at least this similar fits when it and its surroundings cover this much of the question's terms.

Measured on 30 answerable and 20 unanswerable questions over `pydoc_data.topics`, six passages each: every
unanswerable one stays below, the answerable ones that were answered rightly stay above (docs/local-model.md).
"""
KEPT = 0.93
"""A further sentence is added when it reaches this share of the best one's score."""
MOST = 3
SAME = 0.90
"""Two sentences this similar say the same."""
EXAMPLE_FITS = 0.60
"""An earlier example answers the question when its own question is this similar (cosine)."""

_SPACE = re.compile(r"\s+")
_REFERENCE = re.compile(r"\s\[\d+(?:, ?\d+)*\](?=[\s.,;:)]|$)")


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of an answer, and where it comes from.

    `text` is the sentence on one line; `quote` is exactly what stands in the passage.
    """

    text: str
    passage: str | None = None
    quote: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered; without claims the model does not know."""

    claims: tuple[Claim, ...] = ()

    @property
    def plain(self) -> str:
        """The answer without citation markers."""
        return " ".join(claim.text for claim in self.claims) or UNKNOWN

    @property
    def marked(self) -> str:
        """The answer with each sentence followed by the marker of its passage."""
        parts = (
            claim.text if claim.passage is None else f"{claim.text} [{claim.passage}]"
            for claim in self.claims
        )
        return " ".join(parts) or UNKNOWN


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that could be quoted, with how well it fits; `place` orders it among all."""

    place: int
    passage: str
    quote: str
    vector: NDArray[np.float32]
    score: float
    fits: bool


def extract(question: Question, passages: Sequence[Passage], reader: Reader) -> Answer:
    """Answer with one to three sentences of the passages, or not at all when none fits."""
    candidates = _judged(question, [reader.read(passage) for passage in passages])
    fitting = sorted((c for c in candidates if c.fits), key=lambda c: -c.score)
    chosen: list[Candidate] = []
    for candidate in fitting:
        if len(chosen) == MOST or candidate.score < KEPT * fitting[0].score:
            break
        if all(float(candidate.vector @ other.vector) < SAME for other in chosen):
            chosen.append(candidate)
    chosen.sort(key=lambda c: c.place)
    return Answer(tuple(Claim(text=_one_line(c.quote), passage=c.passage, quote=c.quote) for c in chosen))


def _judged(question: Question, readings: Sequence[Reading]) -> list[Candidate]:
    """Score each sentence: its similarity, its terms, the passage it stands in, how it would read."""
    out: list[Candidate] = []
    for reading in readings:
        relevance = float(reading.whole[0] @ question.vector)
        similarity = (reading.vectors @ question.vector).tolist()
        for alike, vector, q in zip(similarity, reading.vectors, reading.quotable, strict=True):
            covered = question.coverage(q.own)
            around = question.coverage(q.own, q.heading, reading.words)
            lead = 0.1 if q.lead & question.weights.keys() else 0.0
            out.append(
                Candidate(
                    place=len(out),
                    passage=reading.passage.id,
                    quote=q.sentence.text,
                    vector=vector,
                    score=alike + 0.3 * covered + 0.5 * around + 0.2 * relevance + lead - q.poor,
                    fits=alike >= CLEAR or (alike >= SIMILAR and around >= COVERED),
                )
            )
    return out


def _one_line(quote: str) -> str:
    """The quoted sentence on one line, without reference marks that would look like citations."""
    return _REFERENCE.sub("", _SPACE.sub(" ", quote))


def support(response: str, passages: Sequence[Passage], reader: Reader) -> Claim:
    """A response as one claim, citing the passage whose sentence says the same, if there is one."""
    vector = reader.encoder.embed([response])[0]
    best, claim = CLEAR, Claim(text=response)
    for reading in map(reader.read, passages):
        for alike, q in zip((reading.vectors @ vector).tolist(), reading.quotable, strict=True):
            if alike >= best:
                best, claim = alike, Claim(text=response, passage=reading.passage.id, quote=q.sentence.text)
    return claim


def by_example(question: Question, examples: Sequence[Example], encoder: Encoder) -> Answer:
    """Answer as the most similar earlier example was answered, if one is similar enough."""
    asked = [example for example in examples if example.answer != UNKNOWN and example.question]
    if not asked:
        return Answer()
    similarity = encoder.embed([example.question for example in asked]) @ question.vector
    best = int(similarity.argmax())
    return Answer((Claim(text=asked[best].answer),)) if float(similarity[best]) >= EXAMPLE_FITS else Answer()

"""An answer and the one that was wished for go in here, and grades come out, by name; 1 is as good as can be.

The grade that decides is F1 corrected for chance: how much better an answer fits its own reference than the references
of other examples. Plain F1 pays for "the" and "is": a model that gives confident wrong answers beats one that says
that it does not know. Corrected, wrong answers taken from other examples fall below that.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

EXACT, TOKEN_F1, CORRECTED, SIMILARITY = "exact_match", "token_f1", "corrected_f1", "similarity"
JSON_VALID, CITATIONS_VALID, JUDGED = "json_validity", "citation_validity", "judge"
PRIMARY = CORRECTED
GUARDS = (EXACT, TOKEN_F1, SIMILARITY)
"""Grades of every answer; none at all is worth 0."""
OPTIONAL_GUARDS = (JSON_VALID, CITATIONS_VALID, JUDGED)
"""Grades that only some answers have; compared where both models' answers have them."""
MOST_OTHERS = 50
"""Other references that an answer is held against: enough for the mean, and no more work."""
_WORD = re.compile(r"\w+")
_MARKER = re.compile(r"\[(\d{1,3})\]")


@dataclass(frozen=True, slots=True)
class Case:
    """An answer to be graded.

    Attributes:
        answer: None where the model gave none.
        sources: passages that it could cite.
        rival: the base model's answer to the same.
    """

    question: str
    reference: str
    answer: str | None
    sources: int = 0
    rival: str | None = None


class Grader(Protocol):
    """Grades the answers of one model."""

    @property
    def name(self) -> str:
        """How the grade is called in the table."""
        ...

    async def grades(self, cases: Sequence[Case]) -> Sequence[float | None]:
        """For each case from 0, worthless, to 1, as good as can be; None where the grade does not apply."""
        ...


@dataclass(frozen=True, slots=True)
class ByItself:
    """Grades each answer by its own text."""

    name: str
    grade: Callable[[Case, str], float | None]

    async def grades(self, cases: Sequence[Case]) -> Sequence[float | None]:
        """None where there is no answer."""
        return [None if case.answer is None else self.grade(case, case.answer) for case in cases]


def exact_match(case: Case, answer: str) -> float:
    """1 when both texts have the same words in the same order; case, spacing and punctuation do not count."""
    return float(words(answer) == words(case.reference))


def token_f1(case: Case, answer: str) -> float:
    """The harmonic mean of precision and recall of words, as in SQuAD (Rajpurkar et al. 2016)."""
    return f1(Counter(words(answer)), Counter(words(case.reference)))


def json_validity(case: Case, answer: str) -> float | None:
    """1 when an answer that should be a JSON object or array is one; None where the reference is none."""
    if _container(case.reference) is None:
        return None
    return float(_container(answer) is not None)


def citation_validity(case: Case, answer: str) -> float | None:
    """The share of an answer's citation markers that name a passage; None without passages or markers."""
    markers = [int(found) for found in _MARKER.findall(answer)]
    if not case.sources or not markers:
        return None
    return sum(1 <= marker <= case.sources for marker in markers) / len(markers)


def _container(text: str) -> Any:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


class CorrectedF1:
    """F1 corrected for chance: what decides."""

    name = CORRECTED

    async def grades(self, cases: Sequence[Case]) -> Sequence[float | None]:
        """From -1 to 1; see `corrected_f1`."""
        grades = await asyncio.to_thread(corrected_f1, [(case.answer, case.reference) for case in cases])
        return [None if case.answer is None else grade for case, grade in zip(cases, grades, strict=True)]


class Similarity:
    """How near an answer is to its reference, by embeddings; no text, no nearness."""

    name = SIMILARITY

    def __init__(
        self, embed: Callable[[Sequence[str]], Awaitable[Mapping[str, npt.NDArray[np.float32]]]]
    ) -> None:
        """Embed texts, none of them empty, by this."""
        self._embed = embed

    async def grades(self, cases: Sequence[Case]) -> Sequence[float | None]:
        """None where there is no answer."""
        wanted = {text for case in cases for text in (case.reference, case.answer or "") if text.strip()}
        vectors = await self._embed(sorted(wanted))
        return [None if case.answer is None else self._near(vectors, case) for case in cases]

    @staticmethod
    def _near(vectors: Mapping[str, npt.NDArray[np.float32]], case: Case) -> float:
        given, wished = vectors.get(case.answer or ""), vectors.get(case.reference)
        return 0.0 if given is None or wished is None else cosine(given, wished)


TEXT_GRADERS: Sequence[Grader] = (
    ByItself(EXACT, exact_match),
    ByItself(TOKEN_F1, token_f1),
    ByItself(JSON_VALID, json_validity),
    ByItself(CITATIONS_VALID, citation_validity),
    CorrectedF1(),
)


def f1(given: Counter[str], wished: Counter[str]) -> float:
    """F1 of two bags of words."""
    if not given or not wished:
        return float(given == wished)
    return 2 * (given & wished).total() / (given.total() + wished.total())


def corrected_f1(pairs: Sequence[tuple[str | None, str]]) -> list[float]:
    """F1 with the own reference, less the mean F1 with the others', for each answer of one model.

    Args:
        pairs: (answer, reference); an answer of None is worth 0.

    Returns:
        From -1 to 1. Where all references are the same there is nothing to correct by, and F1 is returned.
    """
    different = list(dict.fromkeys(reference for _, reference in pairs))
    step = max(1, len(different) // MOST_OTHERS)
    others = [(text, Counter(words(text))) for text in different[::step][:MOST_OTHERS]]
    grades: list[float] = []
    for answer, reference in pairs:
        if answer is None:
            grades.append(0.0)
            continue
        given = Counter(words(answer))
        chance = [f1(given, bag) for text, bag in others if text != reference]
        mean = sum(chance) / len(chance) if chance else 0.0
        grades.append(f1(given, Counter(words(reference))) - mean)
    return grades


def words(text: str) -> list[str]:
    """The words of a text, without case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """The similarity of two vectors of unit length; what points apart counts as 0."""
    return float(np.clip(a @ b, 0.0, 1.0))


def mean_grade(grades: Sequence[Mapping[str, float]], name: str) -> float:
    """The mean of one grade; 0 where it is missing, which is where there was no answer."""
    return sum(one.get(name, 0.0) for one in grades) / len(grades) if grades else 0.0

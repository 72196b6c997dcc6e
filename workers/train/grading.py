"""An answer and the one that was wished for go in here, and grades come out, by name; 1 is as good as can be.

The grade that decides is F1 corrected for chance: how much better an answer fits its own reference than the references
of other examples. Plain F1 pays for "the" and "is": a model that gives confident wrong answers beats one that says
that it does not know. Corrected, wrong answers taken from other examples fall below that.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

SIMILARITY = "similarity"
_WORD = re.compile(r"\w+")


class Grader(Protocol):
    """Grades one answer by its text alone."""

    @property
    def name(self) -> str:
        """How the grade is called in the table."""
        ...

    def grade(self, answer: str, reference: str) -> float:
        """From 0, worthless, to 1, as good as the reference."""
        ...


class ExactMatch:
    """1 when both texts have the same words in the same order."""

    name = "exact_match"

    def grade(self, answer: str, reference: str) -> float:
        """Case, spacing and punctuation do not count."""
        return float(words(answer) == words(reference))


class TokenF1:
    """The harmonic mean of precision and recall of words, as in SQuAD (Rajpurkar et al. 2016)."""

    name = "token_f1"

    def grade(self, answer: str, reference: str) -> float:
        """Two empty texts agree; one empty text agrees with nothing."""
        return f1(Counter(words(answer)), Counter(words(reference)))


GRADERS: Sequence[Grader] = (ExactMatch(), TokenF1())
CORRECTED = "corrected_f1"
PRIMARY = CORRECTED
GUARDS = (ExactMatch.name, TokenF1.name, SIMILARITY)
MOST_OTHERS = 50
"""Other references that an answer is held against: enough for the mean, and no more work."""


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


def grades_of(answer: str, reference: str) -> dict[str, float]:
    """The grades of an answer by all graders of texts."""
    return {grader.name: grader.grade(answer, reference) for grader in GRADERS}


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """The similarity of two vectors of unit length; what points apart counts as 0."""
    return float(np.clip(a @ b, 0.0, 1.0))


def mean_grade(grades: Sequence[Mapping[str, float]], name: str) -> float:
    """The mean of one grade; 0 where it is missing, which is where there was no answer."""
    return sum(one.get(name, 0.0) for one in grades) / len(grades) if grades else 0.0

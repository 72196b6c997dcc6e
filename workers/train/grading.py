"""An answer and the one that was wished for go in here, and grades between 0 and 1 come out, by name."""

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
        given, wished = Counter(words(answer)), Counter(words(reference))
        if not given or not wished:
            return float(given == wished)
        shared = (given & wished).total()
        return 2 * shared / (given.total() + wished.total())


GRADERS: Sequence[Grader] = (ExactMatch(), TokenF1())
PRIMARY = TokenF1.name
GUARDS = (ExactMatch.name, SIMILARITY)


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

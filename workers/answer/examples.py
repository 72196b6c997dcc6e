"""Approved training examples come from the database here; those most like a question go on into its prompt.

Only the train split is shown, so that held-out examples stay unseen, and only to a base model: a tuned one has learned
them. Alike means sharing rare words (cosine of word sets, weighed by rarity); nothing is paid for it.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.database import Database, queries
from workers.answer.prompt import Example

FRESH = 60.0
"""Seconds for which the examples of an alias are believed."""
NEWEST = 300
"""So many of the newest examples are looked at."""
ALIKE = 0.25
"""An example less alike than this would only distract."""
LONGEST = 4000
"""Characters; longer examples are not shown."""
_MANY = 2000
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class _Shelf:
    examples: Sequence[Example]
    words: Sequence[frozenset[str]]
    weights: Mapping[str, float]
    stamp: str


class ExampleShelves:
    """Keeps the examples of each alias for a minute."""

    def __init__(self, database: Database) -> None:
        """Read through a database that acts as ``penstock_worker``."""
        self._database = database
        self._shelves: dict[tuple[str, str], tuple[float, _Shelf]] = {}

    async def nearest(self, tenant_id: str, alias: str, question: str, count: int) -> list[Example]:
        """The examples most like a question, the most alike last: next to the question itself."""
        return _nearest(await self._shelf(tenant_id, alias), question, count) if count else []

    async def stamp(self, tenant_id: str, alias: str) -> str:
        """Changes when the examples of an alias do."""
        return (await self._shelf(tenant_id, alias)).stamp

    async def _shelf(self, tenant_id: str, alias: str) -> _Shelf:
        now = time.monotonic()
        known = self._shelves.get((tenant_id, alias))
        if known is None or known[0] <= now:
            if len(self._shelves) > _MANY:
                self._shelves.clear()
            known = (now + FRESH, await self._load(tenant_id, alias))
            self._shelves[tenant_id, alias] = known
        return known[1]

    async def _load(self, tenant_id: str, alias: str) -> _Shelf:
        async with self._database.transaction(tenant_id, readonly=True) as connection:
            rows = await connection.fetch(queries("answer").examples, tenant_id, alias, NEWEST)
        examples = [one for row in rows if (one := read_example(row["messages"])) is not None]
        words = [_words(one.question) for one in examples]
        counts = Counter(word for some in words for word in some)
        weights = {word: math.log(1 + len(examples) / count) for word, count in counts.items()}
        written = "\0".join(f"{one.question}\0{one.answer}" for one in examples)
        return _Shelf(examples, words, weights, hashlib.sha256(written.encode()).hexdigest())


def read_example(messages: Any) -> Example | None:
    """The one question and answer of an example; None for longer conversations and tool calls."""
    turns = [
        one for one in messages if isinstance(one, dict) and one.get("role") not in {"system", "developer"}
    ]
    if [one.get("role") for one in turns] != ["user", "assistant"]:
        return None
    question, answer = (one.get("content") for one in turns)
    if not isinstance(question, str) or not isinstance(answer, str) or len(question) + len(answer) > LONGEST:
        return None
    return Example(question, answer)


def _nearest(shelf: _Shelf, question: str, count: int) -> list[Example]:
    asked = _words(question)
    length = _length(asked, shelf.weights)
    rated = [
        (
            sum(shelf.weights[word] ** 2 for word in asked & words)
            / (length * _length(words, shelf.weights)),
            place,
        )
        for place, words in enumerate(shelf.words)
        if asked & words
    ]
    best = sorted((one for one in rated if one[0] >= ALIKE), reverse=True)[:count]
    return [shelf.examples[place] for _, place in reversed(best)]


def _length(words: frozenset[str], weights: Mapping[str, float]) -> float:
    # A word that no example knows is as rare as can be.
    return math.sqrt(sum(weights.get(word, math.log(1 + max(1, len(weights)))) ** 2 for word in words)) or 1.0


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in _WORD.findall(text) if len(word) > 2)

"""Prompts become vectors of one width here, and an example that is near to known ones gets its place, or none.

Two examples teach the same when their prompts are near, hold the same numbers, and their answers share nearly all
words: the later one is left out. Examples whose prompts alone are near stay in one split, so that nothing that was
trained on is held out in other words.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from infra.budget import Budget
from infra.coalesce import Coalescer
from infra.llm import ModelApi, Priority
from infra.vectors import to_wire
from schemas.errors import Refused, Unavailable, Uncharged
from workers.train.examples import estimate_tokens, text_of_message
from workers.train.grading import f1, words

WIDTH = 256
"""Of stored vectors: one index serves every model. A projection of more dimensions moves a cosine of 0.97 by 0.004."""
SAME_ANSWER = 0.9
"""F1 of the words of two answers that are the same."""
AT_ONCE = 100
LONGEST = 16_000
"""Characters: below the token limit of every embedding model."""
_NUMBER = re.compile(r"\d+")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A known example whose prompt is near; `counts` where it has not been withdrawn or quarantined."""

    example_id: UUID
    split: str
    similarity: float
    messages: Sequence[Mapping[str, Any]]
    counts: bool


@dataclass(frozen=True, slots=True)
class Place:
    """What becomes of an example.

    Attributes:
        split: where it belongs: with its neighbours.
        same_as: the example that teaches the same; then this one is left out.
        straddles: it is near to examples of several splits and can be in none.
    """

    split: str
    same_as: UUID | None = None
    straddles: bool = False


def find_place(
    messages: Sequence[Mapping[str, Any]], own_split: str, neighbours: Sequence[Neighbour], limit: float
) -> Place:
    """Decide where an example belongs.

    Args:
        messages: of the example.
        own_split: by the hash of its prompt.
        neighbours: nearest first.
        limit: similarity from which prompts are near.
    """
    prompt = prompt_text(messages)
    near = [
        one
        for one in neighbours
        if one.similarity >= limit and _numbers(prompt_text(one.messages)) == _numbers(prompt)
    ]
    if not near:
        return Place(own_split)
    same = [one for one in near if one.counts and _same_answer(one.messages[-1], messages[-1])]
    if same:
        return Place(same[0].split, same_as=same[0].example_id)
    return Place(near[0].split, straddles=len({one.split for one in near}) > 1)


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What is asked: the turns before the answer, without instructions, which a dataset's examples share."""
    turns = [one for one in messages[:-1] if one["role"] not in {"system", "developer"}]
    return "\n".join(text_of_message(one) for one in turns)


def _numbers(text: str) -> list[str]:
    return _NUMBER.findall(text)


def _same_answer(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one.get("tool_calls") != other.get("tool_calls"):
        return False
    ours, theirs = text_of_message(one), text_of_message(other)
    if _numbers(ours) != _numbers(theirs):
        return False
    return f1(Counter(words(ours)), Counter(words(theirs))) >= SAME_ANSWER


def project(vectors: Floats) -> Floats:
    """Vectors of any width as float32[n, 256] of unit length, with nearly the same cosines.

    Wider ones by a fixed matrix of signs (Achlioptas 2003), narrower ones by zeros.
    """
    width = vectors.shape[1]
    if width <= WIDTH:
        return np.pad(vectors, ((0, 0), (0, WIDTH - width)))
    made = vectors @ _signs(width)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)


@cache
def _signs(width: int) -> Floats:
    """Signs that follow from the width alone, in every version of every library."""
    bits = hashlib.shake_256(f"penstock.nearness.{width}".encode()).digest(width * WIDTH // 8)
    flat = np.unpackbits(np.frombuffer(bits, dtype=np.uint8)).astype(np.float32)
    return (2 * flat - 1).reshape(width, WIDTH)


class Prompts:
    """Embeds prompts, many concurrent ones in one paid call."""

    def __init__(self, models: ModelApi, budget: Budget, model: str, dimensions: int) -> None:
        """Use an open model API and one embedding model."""
        self.model = model
        self._models = models
        self._budget = budget
        self._dimensions = dimensions
        self._embed: Coalescer[tuple[str, str], bytes] = Coalescer(self._many, limit=AT_ONCE, parallel=2)

    async def vector(self, tenant_id: str, messages: Sequence[Mapping[str, Any]]) -> bytes:
        """A prompt as the wire bytes of halfvec(256).

        Raises:
            PenstockError: the model API is away, refuses, or the budget is used up.
        """
        return await self._embed((tenant_id, prompt_text(messages)[:LONGEST] or "-"))

    async def aclose(self) -> None:
        """Wait for what is under way."""
        await self._embed.aclose()

    async def _many(self, asked: Sequence[tuple[str, str]]) -> Sequence[bytes | BaseException]:
        found: list[bytes | BaseException] = [b""] * len(asked)
        for tenant in sorted({tenant for tenant, _ in asked}):
            places = [index for index, (whose, _) in enumerate(asked) if whose == tenant]
            try:
                vectors = await self._paid(tenant, [asked[index][1] for index in places])
            except Exception as error:  # noqa: BLE001 - one tenant's trouble is not the others'
                results: list[bytes | BaseException] = [error] * len(places)
            else:
                results = list(to_wire(project(vectors)))
            for index, result in zip(places, results, strict=True):
                found[index] = result
        return found

    async def _paid(self, tenant_id: str, texts: Sequence[str]) -> Floats:
        tokens = sum(estimate_tokens(text) for text in texts)
        reservation = await self._budget.reserve(tenant_id, "embed", self.model, tokens)
        try:
            embedded = await self._models.embed(
                texts, model=self.model, dimensions=self._dimensions, priority=Priority.BACKGROUND
            )
        except (Refused, Uncharged, Unavailable):
            await self._budget.release(reservation)
            raise
        except BaseException:
            await self._budget.waste(reservation)
            raise
        await self._budget.settle(reservation, embedded.tokens)
        return embedded.vectors

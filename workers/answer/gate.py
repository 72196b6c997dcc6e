"""Passages pass through here before money is spent: when none of them bears on the question, there is no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.retrieval import Collection, Passage

MIN_SIMILARITY = 0.32
"""Cosine of question and chunk. Measured over 85,000 chunks with the local model: what does not bear on the question
stays below 0.29, what does is above 0.40; hosted models separate further (docs/decisions/0007-answers.md)."""
MIN_COVERAGE = 0.6
"""Share of the question's words, weighed by rarity, that occur in the chunk: for names and codes that embeddings blur."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What a passage must reach, in either way, to count as evidence."""

    similarity: float = MIN_SIMILARITY
    coverage: float = MIN_COVERAGE

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Floor:
        """A collection's own floor: `min_similarity` and `min_coverage` of its settings."""
        return cls(
            _number(settings.get("min_similarity"), MIN_SIMILARITY),
            _number(settings.get("min_coverage"), MIN_COVERAGE),
        )


def relevant(passages: Sequence[Passage], collections: Sequence[Collection]) -> list[Passage]:
    """The passages that bear on the question, in their order; none means: abstain."""
    floors = {one.name: Floor.of(one.settings) for one in collections}
    return [passage for passage in passages if _bears(passage, floors.get(passage.collection, Floor()))]


def _bears(passage: Passage, floor: Floor) -> bool:
    return (passage.similarity or 0.0) >= floor.similarity or passage.coverage >= floor.coverage


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default

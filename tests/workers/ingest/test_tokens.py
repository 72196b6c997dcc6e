from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.ingest.tokens import UNIT, code_points, estimate, weights

# What cl100k_base makes of these texts, counted once with tiktoken.
COUNTED = [
    ("The quick brown fox jumps over the lazy dog, and then it goes home to have some dinner.", 20),
    ("def estimate(text: str) -> int:\n    return max(1, len(text.split()))\n", 19),
    ("Быстрая коричневая лиса перепрыгивает через ленивую собаку.", 30),
    ("北京是中华人民共和国的首都，位于华北平原北部。", 22),  # noqa: RUF001 - Chinese has commas of its own
]


@pytest.mark.parametrize(("text", "counted"), COUNTED)
def test_estimate_is_near_what_a_tokenizer_counts(text: str, counted: int) -> None:
    """The estimate is within a factor of 1.5 of what cl100k_base counts, in several scripts."""
    assert counted / 1.5 <= estimate(text) <= counted * 1.5


@given(st.text(), st.text())
def test_weights_add_up(one: str, two: str) -> None:
    """A part of a text is as heavy wherever it stands, so that running sums can size chunks."""
    together = int(weights(code_points(one + two)).sum())
    apart = int(weights(code_points(one)).sum()) + int(weights(code_points(two)).sum())
    assert together == apart


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_character_has_a_weight(text: str) -> None:
    """No character is free, and none is more than three tokens: sizes have bounds."""
    values = weights(code_points(text))
    assert values.min() >= UNIT // 16
    assert values.max() <= 3 * UNIT

"""How many vectors an embedding space holds comes in; what becomes of its vector index comes out. Pure.

Few vectors are read one by one: exact, and as fast as an index. Many need the index (HNSW), which makes each new vector
a hundred times dearer to write. Whether a search then uses it is decided per query, from the rows that it may choose
from (`search_passages`): a small tenant of a large space is still read exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto

EXACT_NUMBERS = 4_000_000
"""So many numbers (vectors times dimensions) are compared in about five milliseconds on one core."""
FEWEST = 2_000


class Policy(StrEnum):
    """What an operator wants of a space's index."""

    AUTO = auto()
    """It is built when the space outgrows exact search."""
    DEFERRED = auto()
    """A backfill is under way: there is no index, so that vectors go in a hundred times as cheaply."""


class Action(StrEnum):
    """What is to be done about an index."""

    KEEP = auto()
    BUILD = auto()
    REBUILD = auto()
    """A build was broken off and left an index that nobody uses."""
    SETTLE = auto()
    """It was built, and would still place new vectors with the care of a build."""
    DROP = auto()


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space and its index.

    Attributes:
        rows: vectors, counted no further than `threshold`.
        present: whether there is an index.
        valid: whether it can be used.
        settled: whether it places new vectors at their usual price; an index is built with more care.
    """

    space_id: int
    model: str
    dimensions: int
    policy: Policy
    rows: int
    present: bool
    valid: bool
    settled: bool = True


def threshold(dimensions: int) -> int:
    """Vectors of this width from which on an index pays."""
    return max(FEWEST, EXACT_NUMBERS // dimensions)


def decide(space: Space) -> Action:
    """What is to be done about a space's index. One that is there stays, although the space has shrunk."""
    if space.policy is Policy.DEFERRED:
        return Action.DROP if space.present else Action.KEEP
    if space.present:
        if not space.valid:
            return Action.REBUILD
        return Action.KEEP if space.settled else Action.SETTLE
    return Action.BUILD if space.rows >= threshold(space.dimensions) else Action.KEEP

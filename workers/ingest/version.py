"""A version of a document and what the database knows of it come in; whether it counts comes out. Pure.

Versions are numbers: the newest wins in whatever order they arrive, and a delete is a version too (promise P3). What
counts against a version is `settled`, the newest one that decided the content. A version that failed decided nothing,
so that one between the settled and the failed version still counts: the outcome does not depend on the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any
from uuid import UUID

from schemas.errors import SequenceMode


@dataclass(frozen=True, slots=True)
class Space:
    """The embedding space of a collection."""

    space_id: int
    model: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of a document.

    Attributes:
        revision: counts the writes to the document.
        sequence: the newest version that was decided, a failed one too.
        settled: the newest version that was indexed or deleted; -1 before the first.
        served: the version whose chunks are searchable; None after a delete and before the first.
        explicit: whether its versions are numbered by the caller.
    """

    revision: int
    sequence: int
    settled: int
    served: int | None
    explicit: bool
    content_sha256: bytes | None
    recipe_sha256: bytes | None
    title: str | None
    metadata: Mapping[str, Any]
    uri: str | None
    chunks: int
    tokens: int
    event_id: UUID | None


@dataclass(frozen=True, slots=True)
class Place:
    """A collection, and what is known of one document in it.

    Attributes:
        known: None for a document that was never heard of.
        dropped: the last collection of this name that was dropped.
    """

    collection_id: int
    space: Space
    settings: Mapping[str, Any]
    known: Known | None
    dropped: Dropped | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A collection was dropped after the version had been accepted: the version went with it.

    Attributes:
        accept_no: where the drop stands among all that was accepted.
    """

    accept_no: int


class Standing(Enum):
    """What becomes of a version."""

    COUNTS = auto()
    """It is newer than what decided the content."""
    REPEATED = auto()
    """It has the number of what decided the content: the same version again, or another that comes too late."""
    SUPERSEDED = auto()
    """A newer version decided the content."""


def standing(known: Known | None, sequence: int, *, explicit: bool) -> Standing:
    """Say whether a version counts.

    Args:
        known: what the database knows of the document.
        sequence: the version's number.
        explicit: whether the caller gave it.

    Raises:
        SequenceMode: the document's first version was numbered the other way.
    """
    if known is None:
        return Standing.COUNTS
    if known.explicit != explicit:
        mode = "numbers of their own" if known.explicit else "no numbers"
        raise SequenceMode(
            f"the versions of this document have {mode}, since its first one",
            field="sequence",
            fix=_FIX[known.explicit],
        )
    if sequence > known.settled:
        return Standing.COUNTS
    return Standing.REPEATED if sequence == known.settled else Standing.SUPERSEDED


_FIX = {True: "send a sequence with every version", False: "send no sequence"}

"""A document's chunks as they are and as they should be come in; what to keep, move, add and remove goes out.

Pure. Chunks are compared by the hash of their text: with the embedding space of the collection (model and dimensions)
it is the address of their vector, so a chunk with a known hash costs nothing, wherever in the document it stands now.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from workers.ingest.chunk import Chunk


@dataclass(frozen=True, slots=True)
class Stored:
    """A chunk as the database has it."""

    chunk_id: UUID
    position: int
    heading: str | None
    page: int | None
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Diff:
    """How to come from the stored chunks to the new ones."""

    kept: int
    """Chunks that are already as they should be."""
    moved: tuple[tuple[UUID, Chunk], ...]
    """Stored chunks whose text stays, but whose position, heading or page changes."""
    added: tuple[Chunk, ...]
    removed: tuple[UUID, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing has to be written."""
        return not (self.moved or self.added or self.removed)


def compare(stored: Sequence[Stored], wanted: Sequence[Chunk]) -> Diff:
    """Match chunks by content; equal ones in the order in which they stand, exact matches first."""
    waiting: dict[bytes, deque[Stored]] = defaultdict(deque)
    exact = {(old.sha256, old.position): old for old in stored}
    settled: dict[int, Stored] = {}
    for new in wanted:
        same = exact.get((new.sha256, new.position))
        if same is not None:
            settled[new.position] = same
    taken = {old.chunk_id for old in settled.values()}
    for old in sorted(stored, key=lambda old: old.position):
        if old.chunk_id not in taken:
            waiting[old.sha256].append(old)
    moved: list[tuple[UUID, Chunk]] = []
    added: list[Chunk] = []
    kept = 0
    for new in wanted:
        old_one = settled.get(new.position)
        if old_one is None and waiting[new.sha256]:
            old_one = waiting[new.sha256].popleft()
        if old_one is None:
            added.append(new)
        elif (old_one.position, old_one.heading, old_one.page) == (new.position, new.heading, new.page):
            kept += 1
        else:
            moved.append((old_one.chunk_id, new))
    removed = tuple(sorted(old.chunk_id for left in waiting.values() for old in left))
    return Diff(kept, tuple(moved), tuple(added), removed)

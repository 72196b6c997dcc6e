from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from workers.ingest.chunk import Chunk
from workers.ingest.diff import Stored, compare


def chunks_of(words: Sequence[str], heading: str | None = None) -> list[Chunk]:
    """Wanted chunks, one per word."""
    return [Chunk(at, word, heading, None, 1, word.encode()) for at, word in enumerate(words)]


def stored_of(words: Sequence[str], heading: str | None = None) -> list[Stored]:
    """Stored chunks, one per word."""
    return [Stored(UUID(int=at), at, heading, None, word.encode()) for at, word in enumerate(words)]


documents = st.lists(st.sampled_from("abcdefg"), max_size=12)


@given(documents, documents)
def test_the_diff_leads_from_the_old_document_to_the_new_one(old: Sequence[str], new: Sequence[str]) -> None:
    """Removing, moving and adding what the diff says turns the stored chunks into the wanted ones."""
    stored, wanted = stored_of(old), chunks_of(new)
    diff = compare(stored, wanted)
    state = {one.chunk_id: (one.position, one.sha256) for one in stored if one.chunk_id not in diff.removed}
    for chunk_id, chunk in diff.moved:
        assert state[chunk_id][1] == chunk.sha256
        state[chunk_id] = (chunk.position, chunk.sha256)
    result = sorted([*state.values(), *((chunk.position, chunk.sha256) for chunk in diff.added)])
    assert result == [(chunk.position, chunk.sha256) for chunk in wanted]
    assert diff.kept == len(state) - len(diff.moved)


@given(documents, documents)
def test_no_chunk_is_embedded_that_was_there_before(old: Sequence[str], new: Sequence[str]) -> None:
    """A text is added only as often as the old document did not hold it."""
    added = Counter(chunk.text for chunk in compare(stored_of(old), chunks_of(new)).added)
    assert added == Counter(new) - Counter(old)


@given(documents)
def test_an_unchanged_document_needs_nothing(words: Sequence[str]) -> None:
    """The same chunks again: nothing is moved, added or removed, also when texts repeat."""
    assert compare(stored_of(words), chunks_of(words)).empty


def test_a_new_heading_moves_a_chunk_and_embeds_nothing() -> None:
    """Heading and page are beside the text: they change without a vector."""
    diff = compare(stored_of(["a", "b"], "Old"), chunks_of(["a", "b"], "New"))
    assert (diff.kept, len(diff.moved), diff.added, diff.removed) == (0, 2, (), ())

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Misconfigured
from workers.ingest.chunk import Chunk, Chunking, Strategy, chunk
from workers.ingest.media import source
from workers.ingest.parsed import Block, Kind
from workers.ingest.read import read
from workers.ingest.tokens import estimate

DEFAULT = Chunking()
PROSE = "\n\n".join(topics.values())


def cut(text: str, media_type: str = "text/plain", settings: Chunking = DEFAULT) -> list[Chunk]:
    """Read and cut a text."""
    return list(chunk(read(source(text, media_type)).blocks, settings))


texts = st.text(
    alphabet=st.one_of(st.sampled_from("ab. \n|#é漢😀\u0301\u200d"), st.characters(exclude_categories=["Cs"]))
)
blocks = st.lists(
    st.builds(
        Block,
        kind=st.sampled_from(Kind),
        text=st.one_of(texts, texts.map(lambda text: text * 40)).filter(str.strip),
        heading=st.lists(st.text(max_size=5), max_size=3).map(tuple),
        page=st.none() | st.integers(1, 9),
        level=st.integers(1, 6),
    ),
    min_size=1,
    max_size=8,
)
settings = st.integers(32, 300).flatmap(
    lambda size: st.builds(Chunking, st.sampled_from(Strategy), st.just(size), st.integers(0, size // 4))
)


def squeezed(text: str) -> str:
    """Text without white space."""
    return "".join(text.split())


@given(blocks, settings)
def test_chunks_are_passages_within_their_size(found: Sequence[Block], chosen: Chunking) -> None:
    """No chunk is too large or empty, positions have no gaps, and each is a passage of the document."""
    chunks = list(chunk(found, chosen))
    text = "\n\n".join(block.text for block in found)
    assert [one.position for one in chunks] == list(range(len(chunks)))
    assert all(one.text.strip() and one.tokens <= chosen.size for one in chunks)
    assert all(one.tokens == estimate(one.text) for one in chunks)
    assert all(one.sha256 == sha256(one.text.encode()).digest() for one in chunks)
    assert all(one.text in text for one in chunks)


@given(blocks, settings)
def test_no_word_is_lost_doubled_or_moved(found: Sequence[Block], chosen: Chunking) -> None:
    """Without overlap the chunks, one after the other, are the document."""
    chunks = chunk(found, replace(chosen, overlap=0))
    assert "".join(squeezed(one.text) for one in chunks) == squeezed("".join(block.text for block in found))


@given(blocks, settings)
def test_chunking_is_deterministic(found: Sequence[Block], chosen: Chunking) -> None:
    """The same blocks and settings give the same chunks."""
    assert list(chunk(found, chosen)) == list(chunk(found, chosen))


@pytest.mark.parametrize("joined", ["\n\n", " "])
def test_a_changed_word_costs_at_most_two_embeddings_nearly_always(joined: str) -> None:
    """In 100 chunks of prose, with paragraphs or as one line, an edit touches the chunks around it and no others."""
    text = joined.join(PROSE.split(joined if joined != " " else None))[:90_000]
    before = {one.sha256 for one in cut(text)}
    assert len(before) >= 100
    chooser = random.Random(4)
    costs = []
    for _ in range(100):
        first = text.index(" ", chooser.randrange(len(text) - 100)) + 1
        last = text.index(" ", first)
        edited = text[:first] + "replacement" + text[last:]
        costs.append(len([one for one in cut(edited) if one.sha256 not in before]))
    assert sum(cost <= 2 for cost in costs) >= 97
    assert sum(costs) / len(costs) < 1.5


def test_a_paragraph_put_in_front_leaves_the_rest_as_it_was() -> None:
    """Cuts depend on what stands around them and not on how much stands before."""
    before = {one.sha256 for one in cut(PROSE[:90_000])}
    after = cut("A new paragraph that nobody has seen before.\n\n" + PROSE[:90_000])
    assert len([one for one in after if one.sha256 not in before]) <= 5


def test_one_line_of_ten_megabytes_is_cut() -> None:
    """Neither a long line of words nor one without any place to cut takes more than linear time (test time limit)."""
    line = " ".join(PROSE.split())
    line = (line * (10_000_000 // len(line) + 1))[:10_000_000]
    assert len(cut(line)) > 10_000
    assert len(cut("a" * 10_000_000)) > 5_000


def test_a_new_section_begins_a_new_chunk() -> None:
    """A chunk carries the heading path of where it begins, and sections of some size are not mixed."""
    body = "A sentence of the section, with some words in it. " * 6
    text = f"# Top\n\n{body}\n\n## One\n\n{body}\n\n## Two\n\n{body}"
    chunks = cut(text, "text/markdown")
    assert [one.heading for one in chunks] == ["Top", "Top > One", "Top > Two"]
    assert chunks[1].text.startswith("## One")


def test_small_sections_share_a_chunk_and_a_heading_is_never_left_alone() -> None:
    """Sections of a few words are put together; a heading stays with what follows it."""
    text = "".join(f"## Term {number}\n\nShort.\n\n" for number in range(200))
    chunks = cut(text, "text/markdown")
    assert len(chunks) < 50
    assert all(not one.text.split("\n")[-1].startswith("#") for one in chunks)


def test_flat_strategy_fills_chunks_across_headings() -> None:
    """Without structure fewer, fuller chunks come out."""
    body = "A sentence of the section, with some words in it. " * 6
    text = "".join(f"## Part {number}\n\n{body}\n\n" for number in range(40))
    structured = cut(text, "text/markdown")
    flat = cut(text, "text/markdown", Chunking(Strategy.FLAT))
    assert len(flat) < len(structured)


def test_code_and_tables_are_kept_whole_where_they_fit() -> None:
    """A block that fits a chunk is never cut, wherever it falls."""
    code = "```\n" + "\n".join(f"line_{number} = {number}. Not a sentence." for number in range(12)) + "\n```"
    table = "| a | b |\n|---|---|\n" + "\n".join(f"| {number} | x. y |" for number in range(12))
    prose = "Some words come before it, and they are not few. "
    for count in range(0, 30, 3):
        chunks = cut(f"{prose * count}\n\n{code}\n\n{prose * count}\n\n{table}\n\nend", "text/markdown")
        assert any(code in one.text for one in chunks)
        assert any(table in one.text for one in chunks)


def test_a_large_table_is_cut_between_rows_and_repeats_its_header() -> None:
    """Every part of a table can be read by itself."""
    rows = [f"{number},name {number},some words about it" for number in range(500)]
    chunks = cut("id,name,about\n" + "\n".join(rows), "text/csv")
    assert len(chunks) > 5
    assert all(one.text.startswith("id | name | about\n--- | --- | ---\n") for one in chunks)
    lines = [line for one in chunks for line in one.text.split("\n")[2:]]
    assert lines == [row.replace(",", " | ") for row in rows]


def test_neighbours_overlap_in_prose_by_whole_sentences_or_words() -> None:
    """The end of a chunk is the beginning of the next, by at most the overlap."""
    chunks = cut(PROSE[:20_000])
    shared = 0
    for one, two in pairwise(chunks):
        common = next((size for size in range(len(two.text), 0, -1) if one.text.endswith(two.text[:size])), 0)
        assert estimate(two.text[:common]) <= DEFAULT.overlap + 1
        shared += common > 0
    assert shared > len(chunks) // 2
    assert all(one.tokens <= 224 for one in cut(PROSE[:20_000], settings=Chunking(size=224, overlap=0)))


def test_characters_of_several_code_points_are_not_cut() -> None:
    """A combining mark stays with its letter, an emoji with its skin tone."""
    for character in ("e\u0301", "👍\U0001f3fd", "👩\u200d👩"):
        assert all(one.text.startswith(character[0]) for one in cut(character * 3_000))


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"size": 31}, "chunking.size"),
        ({"size": 2049}, "chunking.size"),
        ({"size": 100, "overlap": 26}, "chunking.overlap"),
        ({"overlap": -1}, "chunking.overlap"),
        ({"strategy": "semantic"}, "chunking"),
        ({"size": "many"}, "chunking"),
        ("small", "chunking"),
    ],
)
def test_wrong_settings_name_the_field(given: object, field: str) -> None:
    """A collection's chunking that cannot be used says what is wrong with it."""
    with pytest.raises(Misconfigured) as caught:
        Chunking.of({"chunking": given})
    assert caught.value.field == field


def test_settings_default_one_by_one() -> None:
    """What a collection does not say keeps its default."""
    assert Chunking.of({}) == DEFAULT
    assert Chunking.of({"chunking": {"size": 512}}) == Chunking(size=512)

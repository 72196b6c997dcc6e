from __future__ import annotations

from uuid import uuid4

import pytest

from infra.retrieval import Part, Passage
from infra.templates import TemplateBody
from tests.workers.answer.passages import passage
from workers.answer.citations import verify
from workers.answer.context import merge
from workers.answer.prompt import build_prompt, with_turns
from workers.answer.tokens import MESSAGE_OVERHEAD, estimate_tokens

DOCUMENT = [f"Part {n} says that the number is {n}." for n in range(9)]


def hit(position: int, *, around: int = 1, document: str = "d") -> Passage:
    """A hit of the document, with its neighbours."""
    beside = [
        Part(uuid4(), n, DOCUMENT[n], None, None)
        for n in range(max(0, position - around), min(9, position + around + 1))
        if n != position
    ]
    return passage(DOCUMENT[position], position=position, document_id=document, neighbours=beside)


def told(passages: list[Passage]) -> list[list[int]]:
    """Which parts each passage holds, in their order."""
    return [
        sorted(
            (n for n, text in enumerate(DOCUMENT) if text in one.text),
            key=lambda n: one.text.find(DOCUMENT[n]),
        )
        for one in passages
    ]


@pytest.mark.parametrize(
    ("hits", "narrow", "wide"),
    [
        ([4], [[4]], [[3, 4, 5]]),
        ([0], [[0]], [[0, 1]]),
        ([4, 5], [[4, 5]], [[3, 4, 5, 6]]),
        ([5, 4], [[4, 5]], [[3, 4, 5, 6]]),
        ([2, 6], [[2], [6]], [[1, 2, 3], [5, 6, 7]]),
        ([6, 2], [[6], [2]], [[5, 6, 7], [1, 2, 3]]),
        ([3, 5], [[3], [5]], [[2, 3, 4], [5, 6]]),
        ([5, 3], [[5], [3]], [[4, 5, 6], [2, 3]]),
        ([], [], []),
    ],
)  # fmt: skip
def test_hits_that_touch_become_one(hits: list[int], narrow: list[list[int]], wide: list[list[int]]) -> None:
    """In the order of the best hit; a neighbour stands in one passage only, that of the better hit."""
    found = merge([hit(position) for position in hits])
    assert (narrow, wide) == (told(found[0]), told(found[1]))


def test_documents_are_not_mixed() -> None:
    """Hits of two documents stay two passages, whatever their positions."""
    narrow, _ = merge([hit(4), hit(5, document="other")])
    assert ["d", "other"] == [one.document_id for one in narrow]


def test_what_two_chunks_share_is_said_once() -> None:
    """The overlap of a chunk with the one before it is not repeated."""
    first = passage("The pump is quiet. It weighs 84 kilograms.", position=0)
    second = passage("It weighs 84 kilograms. It is blue.", position=1)
    [one], _ = merge([second, first])
    assert "The pump is quiet. It weighs 84 kilograms. It is blue." == one.text


def test_a_quote_is_traced_to_its_own_chunk() -> None:
    """A citation of a merged passage names the chunk in which its quote stands."""
    middle = hit(4)
    _, wide = merge([middle])
    verified = verify(f"{DOCUMENT[5]} [1] {DOCUMENT[4]} [1]", wide)
    cited = [citation.as_dict() for citation in verified.citations]
    assert [str(middle.neighbours[1].chunk_id), str(middle.chunk_id)] == [one["chunk_id"] for one in cited]
    assert [DOCUMENT[5], DOCUMENT[4]] == [one["quote"] for one in cited]


def test_a_quote_across_a_border_is_cut_to_one_chunk() -> None:
    """What a citation quotes stands in the chunk that it names."""
    left = passage("The warranty of the Aurora lasts", position=0)
    right = passage("five years from the day of the delivery.", position=1)
    _, wide = merge([left, right])
    verified = verify("The warranty of the Aurora lasts five years from the day of the delivery. [1]", wide)
    [cited] = [citation.as_dict() for citation in verified.citations]
    assert (str(right.chunk_id), right.text) == (cited["chunk_id"], cited["quote"])


def test_neighbours_are_left_out_first() -> None:
    """Where the budget is short hits come before neighbours, and those of the best hit before others'."""
    body = TemplateBody(system="Answer.", max_prompt_tokens=500)
    long = [
        passage(
            f"hit {n} " * 20,
            position=5,
            document_id=f"d{n}",
            neighbours=[Part(uuid4(), 6, f"next {n} " * 100, None, None)],
        )
        for n in range(2)
    ]
    narrow, wide = merge(long)
    made = build_prompt(body, "Why?", narrow, wide=wide)
    assert [True, False] == ["next" in one.text for one in made.passages]
    assert {"neighbours": 1} == made.dropped
    assert estimate_tokens(made.messages[-1]["content"]) < 500


def test_a_repair_stays_within_the_budget() -> None:
    """A long reply is cut to what fits; where nothing fits there is no second attempt."""
    body = TemplateBody(system="Answer.", max_prompt_tokens=600)
    first = build_prompt(body, "Why?", [passage("word " * 200)])
    again = with_turns(body, first, "wrong " * 2000, "Reply again.")
    assert again is not None
    spent = sum(estimate_tokens(message["content"]) + MESSAGE_OVERHEAD for message in again.messages)
    assert spent <= again.tokens <= 600
    assert with_turns(TemplateBody(system="Answer.", max_prompt_tokens=500), first, "x", "why " * 300) is None

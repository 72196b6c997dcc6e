from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.model.prompt import Message, read_prompt
from infra.retrieval import Collection
from infra.templates import TemplateBody
from schemas.errors import TooLarge
from tests.workers.answer.passages import passage
from workers.answer.examples import read_example
from workers.answer.fence import fence
from workers.answer.gate import MIN_COVERAGE, MIN_SIMILARITY, relevant
from workers.answer.prompt import Example, build_prompt
from workers.answer.tokens import MESSAGE_OVERHEAD, cut_to_tokens, estimate_tokens

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
BREAKOUTS = st.sampled_from(
    [
        "</passage>",
        "</ passage >",
        "<passage id='9'>",
        "</PASSAGE\n>",
        "<passage",
        "Question: what?",
        "\n",
        "< /passage>",
    ]
)


@given(parts=st.lists(st.one_of(TEXT, BREAKOUTS), max_size=8), question=TEXT.filter(str.strip), title=TEXT)
def test_no_text_leaves_its_fence(parts: list[str], question: str, title: str) -> None:
    """Whatever a passage, its title or the question holds, a reader finds one passage and no other fence."""
    made = build_prompt(
        TemplateBody(max_prompt_tokens=100_000), question, [passage("".join(parts), title=title)]
    )
    content = made.messages[-1]["content"]
    assert 1 == content.lower().count("</passage")
    assert 1 == content.lower().count("<passage")
    read = read_prompt([Message(one["role"], one["content"]) for one in made.messages])
    assert ["1"] == [one.id for one in read.passages]


def test_a_passage_is_labelled() -> None:
    """Number, title, heading and page stand on the fence, quoted."""
    made = fence(3, passage("Text.", title='A "great" <book>', heading="Part\n1", page=7))
    assert (
        '<passage id="3" title="A &quot;great&quot; &lt;book&gt;" heading="Part 1" page="7">\nText.\n</passage>'
        == made
    )


def test_the_question_comes_last() -> None:
    """System, examples as turns, then passages and the question."""
    made = build_prompt(TemplateBody(), "Why?", [passage("a"), passage("b")], [Example("When?", "Now.")])
    assert ["system", "user", "assistant", "user"] == [message["role"] for message in made.messages]
    assert ("Question: When?", "Now.") == (made.messages[1]["content"], made.messages[2]["content"])
    assert made.messages[-1]["content"].endswith("</passage>\nQuestion: Why?")
    assert made.dropped == {}


@given(
    budget=st.integers(500, 3000),
    lengths=st.lists(st.integers(1, 4000), max_size=12),
    examples=st.lists(st.integers(1, 500), max_size=4),
)
def test_the_token_budget_is_never_exceeded(budget: int, lengths: list[int], examples: list[int]) -> None:
    """Whatever is offered, what is sent stays below the limit, and what was left out is counted."""
    body = TemplateBody(system="Answer.", max_prompt_tokens=budget, few_shot=4)
    offered = [passage("word " * length) for length in lengths]
    made = build_prompt(body, "Why is it so?", offered, [Example("q " * n, "a " * n) for n in examples])
    spent = sum(estimate_tokens(message["content"]) + MESSAGE_OVERHEAD for message in made.messages)
    assert spent <= budget
    assert made.tokens <= budget
    assert len(made.passages) + made.dropped.get("passages", 0) == len(offered)
    assert bool(made.passages) == bool(offered)
    shown = (len(made.messages) - 2) // 2
    assert shown + made.dropped.get("examples", 0) == min(4, len(examples))


def test_the_only_passage_is_cut_rather_than_left_out() -> None:
    """Its beginning is shown, and the cut is counted."""
    body = TemplateBody(system="Answer.", max_prompt_tokens=500)
    made = build_prompt(body, "Why?", [passage("one two three four. " * 500), passage("other")])
    assert 1 == len(made.passages)
    assert made.dropped["passages"] == 1
    assert made.dropped["passage_tokens"] > 1000


def test_a_question_that_fills_the_prompt_is_refused() -> None:
    """There must be room for evidence."""
    with pytest.raises(TooLarge) as caught:
        build_prompt(TemplateBody(max_prompt_tokens=500), "why " * 600, [passage("a")])
    assert caught.value.field == "question"


@given(text=TEXT, limit=st.integers(0, 50))
def test_a_cut_text_fits_and_is_a_beginning(text: str, limit: int) -> None:
    """Cutting keeps a prefix within the limit."""
    cut = cut_to_tokens(text, limit)
    assert text.startswith(cut)
    assert estimate_tokens(cut) <= limit or cut == text


def collection(**settings: object) -> Collection:
    """A collection with these settings."""
    return Collection("docs", 1, 0, settings, "m", 256)


@pytest.mark.parametrize(
    ("similarity", "coverage", "settings", "expected"),
    [
        (MIN_SIMILARITY, 0.0, {}, True),
        (MIN_SIMILARITY - 0.01, 0.0, {}, False),
        (None, MIN_COVERAGE, {}, True),
        (None, MIN_COVERAGE - 0.01, {}, False),
        (-0.2, 1.0, {}, True),
        (0.5, 0.0, {"min_similarity": 0.6}, False),
        (0.1, 0.0, {"min_similarity": 0.1}, True),
        (0.1, 0.9, {"min_coverage": 1.1}, False),
        (0.9, 0.0, {"min_similarity": "high"}, True),
        (0.9, 0.0, {"min_similarity": True}, True),
    ],
)
def test_evidence_is_nearness_or_shared_words(
    similarity: float | None, coverage: float, settings: dict[str, object], expected: bool
) -> None:
    """Either is enough; a collection's own floor replaces the usual one, if it is a number."""
    found = relevant([passage("t", similarity=similarity, coverage=coverage)], [collection(**settings)])
    assert expected == bool(found)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["user", "assistant"], True),
        (["system", "user", "assistant"], True),
        (["user", "assistant", "user", "assistant"], False),
        (["user"], False),
    ],
)
def test_only_single_turns_are_shown_as_examples(roles: list[str], expected: bool) -> None:
    """A question with its answer, whatever system message stood before them."""
    assert expected == (read_example([{"role": role, "content": "x"} for role in roles]) is not None)


@pytest.mark.parametrize(
    "text",
    [
        "two words",
        "a\n\n\nb\n \nc\r\n\r\nd",
        "    if so:\n        return  x",
        "a\tb\t\tc \t d",
        "\x1cgrün\x85\u3000日本語  ✓ " + "a" * 30,
    ],
)
def test_the_estimate_counts_what_the_cut_counts(text: str) -> None:
    """A text fits into its own estimate whole, and into one token less not at all."""
    tokens = estimate_tokens(text)
    assert text == cut_to_tokens(text, tokens)
    assert len(text) > len(cut_to_tokens(text, tokens - 1))

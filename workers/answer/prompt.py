"""A question, its passages and examples pass through here and leave as messages within the template's token budget.

What does not fit is left out in this order: neighbours of passages, examples, then passages from the least relevant
on, then the end of the only passage that is left. What was left out is recorded with the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from infra.retrieval import Passage
from infra.templates import TemplateBody
from schemas.errors import TooLarge
from workers.answer.fence import defuse, fence
from workers.answer.tokens import MESSAGE_OVERHEAD, cut_to_tokens, estimate_tokens

SHORTEST = 60
"""Tokens: a passage cut shorter than this says nothing."""


@dataclass(frozen=True, slots=True)
class Example:
    """An approved training example, shown as one turn."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to the model.

    Attributes:
        passages: those that were supplied; citation [1] is the first.
        tokens: what the messages have at most.
        dropped: how much of what did not fit.
    """

    messages: Sequence[dict[str, str]]
    passages: Sequence[Passage]
    tokens: int
    dropped: dict[str, int]


def build_prompt(
    body: TemplateBody,
    question: str,
    passages: Sequence[Passage],
    examples: Sequence[Example] = (),
    *,
    wide: Sequence[Passage] = (),
) -> Prompt:
    """Lay out a prompt.

    Args:
        body: the template.
        question: what is asked.
        passages: the evidence, best first.
        examples: shown as turns, the most alike last.
        wide: the same passages with their neighbours, to be shown where they fit.

    Raises:
        TooLarge: template and question alone exceed the budget.
    """
    asked = f"Question: {defuse(question)}"
    shown = list(examples[: body.few_shot])
    most = wide or passages
    blocks = [fence(number, passage) for number, passage in enumerate(most, 1)]
    whole = _messages(body.system, blocks, asked, shown)
    size = sum(len(message["content"].encode()) + MESSAGE_OVERHEAD for message in whole)
    if size <= body.max_prompt_tokens:
        # No token is shorter than a byte: there is nothing to estimate.
        return Prompt(whole, most, size, {})

    room = check_room(body, question, SHORTEST if passages else 0)
    size = _cost_of_system(body.system) + sum(_cost(one["content"]) for one in whole[1:]) + len(blocks)
    if size <= body.max_prompt_tokens:
        return Prompt(whole, most, size, {})
    if wide:
        blocks = [fence(number, passage) for number, passage in enumerate(passages, 1)]
    kept, room, cut = _fitting(blocks, passages, room)
    fitting: list[Example] = []
    for example in shown:
        cost = _cost(f"Question: {example.question}") + _cost(example.answer)
        if cost <= room:
            fitting.append(example)
            room -= cost
    supplied = list(passages[: len(kept)])
    narrow, room = _widen(kept, supplied, wide, room)
    dropped = {
        "passages": len(passages) - len(kept),
        "passage_tokens": cut,
        "examples": len(shown) - len(fitting),
        "neighbours": narrow,
    }
    return Prompt(
        _messages(body.system, kept, asked, fitting),
        supplied,
        body.max_prompt_tokens - room,
        {name: count for name, count in dropped.items() if count},
    )


def with_turns(body: TemplateBody, prompt: Prompt, said: str, asked: str) -> Prompt | None:
    """A prompt with what the model said and what is asked next, within the budget; None when there is no room for it.

    What the model said is cut where it is too long.
    """
    spent = sum(_cost(message["content"]) for message in prompt.messages) + len(prompt.passages)
    room = body.max_prompt_tokens - spent - _cost(asked) - MESSAGE_OVERHEAD
    if room < SHORTEST:
        return None
    shown = cut_to_tokens(said, room)
    turns = [{"role": "assistant", "content": shown}, {"role": "user", "content": asked}]
    tokens = spent + _cost(shown) + _cost(asked)
    return replace(prompt, messages=[*prompt.messages, *turns], tokens=tokens)


def check_room(body: TemplateBody, question: str, least: int = SHORTEST) -> int:
    """The tokens that template and question leave for everything else.

    Raises:
        TooLarge: fewer than `least`.
    """
    room = body.max_prompt_tokens - _cost_of_system(body.system) - _cost(f"Question: {defuse(question)}")
    if room < least:
        raise TooLarge(
            f"template and question exceed the template's {body.max_prompt_tokens} tokens",
            field="question",
            fix="shorten the question, or raise max_prompt_tokens of the template",
        )
    return room


def _widen(blocks: list[str], supplied: list[Passage], wide: Sequence[Passage], room: int) -> tuple[int, int]:
    """Put the neighbours in, the best passage's first; returns how many passages stay without, and the room left."""
    narrow = 0
    for place, passage in enumerate(wide[: len(blocks)]):
        if passage.text == supplied[place].text:
            continue
        block = fence(place + 1, passage)
        more = estimate_tokens(block) - estimate_tokens(blocks[place])
        if more > room:
            narrow += 1
            continue
        blocks[place], supplied[place] = block, passage
        room -= more
    return narrow, room


def _fitting(blocks: Sequence[str], passages: Sequence[Passage], room: int) -> tuple[list[str], int, int]:
    """The blocks that fit, the room that is left, and how many tokens the only one was shortened by."""
    kept: list[str] = []
    for block in blocks:
        cost = estimate_tokens(block) + 1
        if cost > room:
            break
        kept.append(block)
        room -= cost
    if kept or not blocks:
        return kept, room, 0
    # Two more, because the breaks around a text count singly and those around nothing as one.
    bare = estimate_tokens(fence(1, passages[0], "")) + 3
    text = defuse(passages[0].text)
    part = cut_to_tokens(text, room - bare)
    block = fence(1, passages[0], part)
    return [block], max(0, room - estimate_tokens(block) - 1), estimate_tokens(text) - estimate_tokens(part)


def _messages(
    system: str, blocks: Sequence[str], asked: str, examples: Sequence[Example]
) -> list[dict[str, str]]:
    turns = [
        message
        for example in examples
        for message in (
            {"role": "user", "content": f"Question: {defuse(example.question)}"},
            {"role": "assistant", "content": example.answer},
        )
    ]
    return [
        {"role": "system", "content": system},
        *turns,
        {"role": "user", "content": "\n".join([*blocks, asked])},
    ]


@lru_cache(maxsize=256)
def _cost_of_system(text: str) -> int:
    """A template's part of a prompt, the same for all of its questions."""
    return _cost(text)


def _cost(text: str) -> int:
    return estimate_tokens(text) + MESSAGE_OVERHEAD

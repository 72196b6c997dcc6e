"""A held-out question goes in here and comes out with its passages, the same for every model that is compared."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from infra.database import Connection, queries
from infra.retrieval import Passage, Retriever
from schemas.inbound import MAX_QUESTION
from workers.train.asking import Desk
from workers.train.examples import text_of_message

TOP_K = 8
INSTRUCTION = (
    "Answer from the passages. Cite the passages that you use by their numbers, like [1]. "
    "Say so where they do not hold the answer."
)
_FENCE = re.compile(r"<(?=\s*/?\s*passage)", re.IGNORECASE)


async def retrieve(desk: Desk, collections: Sequence[str], prompt: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The passages for the question that a prompt ends with; none where it asks nothing in words.

    Raises:
        NotFound: a collection does not exist.
        PenstockError: the question could not be embedded now.
    """
    question = question_of(prompt)[:MAX_QUESTION]
    if not question.strip():
        return []
    retriever = Retriever(desk.resources.database, desk.models, desk.resources.budget)
    known = await retriever.look_up(desk.tenant_id, collections)
    found = await retriever.find(desk.tenant_id, known, question, top_k=TOP_K)
    return [_kept(one) for one in found.passages]


async def keep(
    connection: Connection, tenant_id: str, run_id: Any, example_id: Any, passages: list[Any]
) -> None:
    """Keep what was retrieved; the first time counts."""
    await connection.execute(queries("train").add_context, tenant_id, run_id, example_id, passages)


def question_of(prompt: Sequence[Mapping[str, Any]]) -> str:
    """What the last message of the user asks."""
    return next((text_of_message(one) for one in reversed(prompt) if one["role"] == "user"), "")


def with_context(
    prompt: Sequence[Mapping[str, Any]], passages: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A prompt whose question comes with passages, laid out as in service: fenced, numbered, under an instruction."""
    if not passages:
        return [dict(one) for one in prompt]
    last = max(index for index, one in enumerate(prompt) if one["role"] == "user")
    blocks = [_fenced(number, one) for number, one in enumerate(passages, 1)]
    asked = "\n".join([*blocks, f"Question: {_FENCE.sub('&lt;', question_of(prompt))}"])
    turns = [{**one, "content": asked} if index == last else dict(one) for index, one in enumerate(prompt)]
    return [{"role": "system", "content": INSTRUCTION}, *turns]


def _fenced(number: int, passage: Mapping[str, Any]) -> str:
    labels = {"id": str(number), "title": passage.get("title"), "heading": passage.get("heading")}
    given = "".join(f' {name}="{html.escape(str(value)[:200])}"' for name, value in labels.items() if value)
    return f"<passage{given}>\n{_FENCE.sub('&lt;', str(passage['text']))}\n</passage>"


def _kept(passage: Passage) -> dict[str, Any]:
    return {
        "collection": passage.collection,
        "document_id": passage.document_id,
        "chunk_id": str(passage.chunk_id),
        "title": passage.title,
        "heading": passage.heading,
        "text": passage.text,
    }

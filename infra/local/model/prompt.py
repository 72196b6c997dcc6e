"""The messages of a chat request pass through here and go on as a question, its passages and its examples.

Text inside a passage is data: nothing that stands there is read as a question, an example or an instruction.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_PASSAGE = re.compile(r"<passage\b([^>]*)>\n?(.*?)\n?</passage\s*>", re.DOTALL | re.IGNORECASE)
_ATTRIBUTE = re.compile(r"([\w:-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_QUESTION = re.compile(r"^[ \t]*question[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_ANSWER_CUE = re.compile(r"\n[ \t]*answer[ \t]*:[ \t]*$", re.IGNORECASE)
_REWRITE = re.compile(r"\b(?:rewrite|rephrase)\b[^.]{0,60}\b(?:question|follow-up)\b", re.IGNORECASE)
_MARKER = re.compile(r"[ \t]*\[\d+(?:\s*,\s*\d+)*\]")
_CONTEXT_ATTRIBUTES = ("title", "heading", "section")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat: its role and its plain text."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One fenced passage: what citations call it, its text, and the title and heading it stands under."""

    id: str
    text: str
    context: str


@dataclass(frozen=True, slots=True)
class Example:
    """An earlier turn, or a few-shot example: a question and how it was answered."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the last user message asks, and what may be answered from.

    With `rewrite` the question is to be put in other words and not to be answered.
    """

    question: str
    passages: tuple[Passage, ...]
    examples: tuple[Example, ...]
    rewrite: bool = False


def read_prompt(messages: Sequence[Message]) -> Prompt:
    """Find the question, the passages and the examples.

    Passages may stand in any system, developer or user message up to the last user message, with any attributes
    in any order. The question is what follows the last line that begins with `Question:` outside the passages,
    or, without such a line, the last user message less its passages.
    """
    asked = max((n for n, message in enumerate(messages) if message.role == "user"), default=-1)
    passages: list[Passage] = []
    for n, message in enumerate(messages[: asked + 1]):
        # Passages of earlier turns belonged to earlier questions; rules given once hold throughout.
        if n == asked or message.role in {"system", "developer"}:
            passages += [
                _passage(match, len(passages) + k + 1)
                for k, match in enumerate(_PASSAGE.finditer(message.text))
            ]
    examples = [
        Example(question=question_of(before.text), answer=without_markers(after.text))
        for before, after in pairwise(messages[: asked + 1])
        if before.role == "user" and after.role == "assistant" and after.text.strip()
    ]
    question = question_of(messages[asked].text) if asked >= 0 else ""
    rewrite = any(_REWRITE.search(m.text) for m in messages if m.role in {"system", "developer"})
    return Prompt(question=question, passages=tuple(passages), examples=tuple(examples), rewrite=rewrite)


def question_of(text: str) -> str:
    """The question that a user message asks, read outside its passages."""
    outside = _PASSAGE.sub("\n", text)
    lines = list(_QUESTION.finditer(outside))
    return _ANSWER_CUE.sub("", (outside[lines[-1].end() :] if lines else outside).rstrip()).strip()


def without_markers(text: str) -> str:
    """A response without its citation markers, which point into the passages of another prompt."""
    return _MARKER.sub("", text).strip()


def _passage(match: re.Match[str], position: int) -> Passage:
    attributes = {
        name.lower(): html.unescape(double or single or bare)
        for name, double, single, bare in _ATTRIBUTE.findall(match.group(1))
    }
    context = " ".join(attributes[name] for name in _CONTEXT_ATTRIBUTES if attributes.get(name))
    return Passage(id=attributes.get("id", str(position)), text=match.group(2), context=context)

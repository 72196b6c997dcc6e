"""A passage passes through here into a prompt, fenced and labelled, so that nothing in it can end its own fence.

It lowers the risk that a model obeys what a document says; it does not remove it (docs/decisions/0007-answers.md).
"""

from __future__ import annotations

import html
import re

from infra.retrieval import Passage

_FENCE = re.compile(r"<(?=\s*/?\s*passage)", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


def fence(number: int, passage: Passage, text: str | None = None) -> str:
    """A passage as a numbered block.

    Args:
        number: what a citation calls it.
        passage: where the text comes from.
        text: the part of its text that is shown; all unless given.
    """
    labels = {"id": str(number), "title": passage.title, "heading": passage.heading, "page": passage.page}
    given = "".join(
        f' {name}="{_label(str(value))}"' for name, value in labels.items() if value not in {None, ""}
    )
    return f"<passage{given}>\n{defuse(passage.text if text is None else text)}\n</passage>"


def defuse(text: str) -> str:
    """A text in which no fence begins or ends."""
    return _FENCE.sub("&lt;", text)


def _label(text: str) -> str:
    return html.escape(_SPACE.sub(" ", text)[:200], quote=True)

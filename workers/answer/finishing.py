"""What a model wrote passes through here and leaves as a result: verified, cleaned, answered or abstained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.response_schema import find_fault
from infra.retrieval import Passage
from infra.templates import UNKNOWN
from schemas.errors import CallFailed
from schemas.states import AnswerState
from workers.answer.citations import Verified, cite, verify
from workers.answer.sanitize import addresses_in, sanitize

_LETTERS = re.compile(r"[^a-z]+")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Finished:
    """A reply that was checked.

    Attributes:
        report: what was cut out of it.
    """

    status: AnswerState
    answer: str | None
    structured: Any
    verified: Verified
    report: Mapping[str, Any]


def finish_text(text: str, passages: Sequence[Passage]) -> Finished:
    """Check a reply in plain text."""
    verified = verify(text, passages)
    if _same_words(verified.text, UNKNOWN):
        return Finished(
            AnswerState.ABSTAINED, None, None, Verified(), {"reason": "the passages hold no answer"}
        )
    allowed = addresses_in(one.passage.text for one in verified.citations)
    clean, removed = sanitize(verified.text, allowed)
    return Finished(AnswerState.ANSWERED, clean.strip(), None, verified, _report(verified, removed))


def finish_structured(text: str, schema: Mapping[str, Any], passages: Sequence[Passage]) -> Finished:
    """Check a reply in JSON.

    Raises:
        CallFailed: it is not JSON or does not satisfy the schema; the message says where.
    """
    try:
        reply = json.loads(text)
    except ValueError:
        raise CallFailed("the model's reply is not JSON") from None
    if not isinstance(reply, dict) or "answer" not in reply or not isinstance(reply.get("citations"), list):
        raise CallFailed("the model's reply lacks answer or citations")
    if reply.get("known") is False:
        return Finished(
            AnswerState.ABSTAINED, None, None, Verified(), {"reason": "the passages hold no answer"}
        )
    fault = find_fault(reply["answer"], schema)
    if fault is not None:
        raise CallFailed(f"the model's reply breaks the schema at {fault}")
    verified = Verified()
    for one in reply["citations"]:
        number = _DIGITS.search(str(one.get("passage", ""))) if isinstance(one, dict) else None
        cite(int(number[0]) if number else 0, str(one.get("quote", "")) if number else "", passages, verified)
    allowed = addresses_in(one.passage.text for one in verified.citations)
    removed: list[int] = []
    value = _clean(reply["answer"], allowed, removed)
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Finished(AnswerState.ANSWERED, shown, value, verified, _report(verified, sum(removed)))


def _clean(value: Any, allowed: frozenset[str], removed: list[int]) -> Any:
    """Every text in a JSON value, sanitized."""
    if isinstance(value, str):
        clean, count = sanitize(value, allowed)
        removed.append(count)
        return clean if count else value
    if isinstance(value, list):
        return [_clean(item, allowed, removed) for item in value]
    if isinstance(value, dict):
        return {name: _clean(item, allowed, removed) for name, item in value.items()}
    return value


def _report(verified: Verified, removed: int) -> dict[str, Any]:
    report: dict[str, Any] = {}
    if verified.rejected:
        report["rejected_citations"] = verified.rejected
    if removed:
        report["removed"] = removed
    if not verified.citations:
        report["uncited"] = True
    return report


def _same_words(text: str, other: str) -> bool:
    """Whether two short replies say the same, whatever their apostrophes and full stops."""
    return _LETTERS.sub("", text.casefold()) == _LETTERS.sub("", other.casefold())

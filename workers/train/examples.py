"""One example is checked here as OpenAI's JSONL wants it; what leaves knows its hashes, its size and its split."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import orjson

from schemas.errors import BadInput, TooLarge
from schemas.values import Message

Split: TypeAlias = Literal["train", "validation", "holdout"]

MAX_TOKENS = 65_536
TOKENS_PER_MESSAGE = 4
TRAIN_SHARE, VALIDATION_SHARE = 65, 10
"""Of a hundred; the rest is held out."""
_SPACE = re.compile(r"\s+")
_EDGE = re.compile(r"^\W+|\W+$")


@dataclass(frozen=True, slots=True)
class Checked:
    """An example that may be trained on.

    Attributes:
        messages: the line's messages, without keys that are not set.
        tokens: estimated; the trainer counts for itself.
        content_sha256: equal for examples that teach the same.
        prompt_sha256: equal for examples that answer the same prompt; it decides the split.
    """

    messages: list[dict[str, Any]]
    tokens: int
    content_sha256: bytes
    prompt_sha256: bytes
    split: Split


def check_example(messages: Sequence[Message], field: str = "data.messages") -> Checked:
    """Hold an example against the rules of chat training files.

    Raises:
        BadInput: names the message at fault; nothing of its text.
    """
    _check_order(messages, field)
    calls: set[str] = set()
    for index, message in enumerate(messages):
        _check_message(message, f"{field}.{index}", calls)
    plain = [message.model_dump(exclude_none=True) for message in messages]
    tokens = sum(TOKENS_PER_MESSAGE + estimate_tokens(_text_of(message)) for message in plain)
    if tokens > MAX_TOKENS:
        raise TooLarge(f"an example has at most {MAX_TOKENS} tokens, this one about {tokens}", field=field)
    prompt = normalised_prompt(plain)
    answer = orjson.dumps(plain[-1], option=orjson.OPT_SORT_KEYS)
    return Checked(
        messages=plain,
        tokens=tokens,
        content_sha256=hashlib.sha256(prompt + b"\x00" + answer).digest(),
        prompt_sha256=(digest := hashlib.sha256(prompt).digest()),
        split=split_of(digest),
    )


def normalised_prompt(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """All messages but the last, in a form that case, spacing and outer punctuation do not change."""
    turns = [[message["role"], _normalised(_text_of(message))] for message in messages[:-1]]
    return orjson.dumps(turns)


def split_of(prompt_sha256: bytes) -> Split:
    """Where all examples of a prompt belong, for ever: 65 % train, 10 % validation, 25 % holdout."""
    bucket = int.from_bytes(prompt_sha256[:8], "big") % 100
    if bucket < TRAIN_SHARE:
        return "train"
    return "validation" if bucket < TRAIN_SHARE + VALIDATION_SHARE else "holdout"


def estimate_tokens(text: str) -> int:
    """Tokens of a text: a byte-pair vocabulary needs one for about four bytes, and never less than one a word."""
    return max(-(-len(text.encode()) // 4), len(text.split()))


def text_of_message(message: Mapping[str, Any]) -> str:
    """The text of a message's content: a string, or its text parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return ""


def screened_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """All that an example says, the arguments of its tool calls included."""
    return "\n".join(_text_of(message) for message in messages)


def _text_of(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls")
    extra = orjson.dumps(calls, option=orjson.OPT_SORT_KEYS).decode() if calls else ""
    return text_of_message(message) + extra


def _normalised(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _EDGE.sub("", _SPACE.sub(" ", folded)).strip()


def _check_order(messages: Sequence[Message], field: str) -> None:
    if messages[-1].role != "assistant":
        raise BadInput("the last message must be the assistant's", field=f"{field}.{len(messages) - 1}.role")
    if not any(message.role == "user" for message in messages):
        raise BadInput("an example needs a message of the user", field=field)
    if messages[-1].weight == 0:
        raise BadInput(
            "the last message has weight 0, so nothing is learned",
            field=f"{field}.{len(messages) - 1}.weight",
        )
    for index, message in enumerate(messages[1:], start=1):
        if message.role in {"system", "developer"} and messages[index - 1].role not in {
            "system",
            "developer",
        }:
            raise BadInput("system messages come first", field=f"{field}.{index}.role")


def _check_message(message: Message, field: str, calls: set[str]) -> None:
    if message.weight is not None and message.role != "assistant":
        raise BadInput("only messages of the assistant have a weight", field=f"{field}.weight")
    if message.role == "tool":
        if message.tool_call_id not in calls:
            raise BadInput("answers no tool call of an earlier message", field=f"{field}.tool_call_id")
    elif message.tool_call_id is not None:
        raise BadInput("only messages of a tool answer a call", field=f"{field}.tool_call_id")
    if message.tool_calls is not None:
        if message.role != "assistant":
            raise BadInput("only the assistant calls tools", field=f"{field}.tool_calls")
        calls |= _call_ids(message.tool_calls, f"{field}.tool_calls")
    elif not _has_text(message.content, field):
        raise BadInput("must hold text", field=f"{field}.content")


def _call_ids(value: Any, field: str) -> set[str]:
    if not isinstance(value, list) or not value:
        raise BadInput("must be a list of tool calls", field=field)
    found: set[str] = set()
    for index, call in enumerate(value):
        function = call.get("function") if isinstance(call, dict) else None
        if (
            not isinstance(function, dict)
            or not isinstance(call.get("id"), str)
            or call.get("type") != "function"
            or not isinstance(function.get("name"), str)
            or not isinstance(function.get("arguments"), str)
        ):
            raise BadInput(
                "needs id, type function, and a function with name and arguments", field=f"{field}.{index}"
            )
        found.add(call["id"])
    return found


def _has_text(content: Any, field: str) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    if not isinstance(content, list):
        return False
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise BadInput("only parts of text can be trained on", field=f"{field}.content.{index}")
    return any(part["text"].strip() for part in content)

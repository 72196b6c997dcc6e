"""The body of a chat request passes through here, checked, and goes on as messages and wishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infra.local.model.errors import invalid, missing, unsupported, wrong_type
from infra.local.model.fields import Fields, as_fields
from infra.local.model.prompt import Message
from infra.local.model.structured import read_schema
from infra.local.model.training_file import plain_text

MOST_COMPLETION = 16_384
MOST_STOPS = 4
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_WITHOUT_EFFECT = frozenset(
    {
        "frequency_penalty",
        "metadata",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "seed",
        "service_tier",
        "store",
        "temperature",
        "top_p",
        "user",
        "verbosity",
    }
)
"""Accepted as OpenAI does; an extractive answerer has nothing to vary."""
_USED = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "n",
        "response_format",
        "stop",
        "stream",
        "stream_options",
    }
)
_NOT_HERE = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "modalities",
        "parallel_tool_calls",
        "prediction",
        "tool_choice",
        "tools",
        "top_logprobs",
        "web_search_options",
    }
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a chat request asks for."""

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    most_tokens: int | None
    stop: tuple[str, ...]
    schema: Mapping[str, object] | None


def read_chat(fields: Fields) -> ChatRequest:
    """Check a body.

    Raises:
        ApiError: naming the parameter at fault, or one that this server does not support.
    """
    model = fields.text("model")
    for name in sorted(_NOT_HERE):
        if fields.values.get(name) not in (None, False, [], {}):
            raise unsupported(name, "The local model has no such ability.")
    fields.only(_WITHOUT_EFFECT | _USED | _NOT_HERE)
    fields.number("temperature", 1, low=0, high=2)
    fields.number("top_p", 1, low=0, high=1)
    if fields.whole("n", 1, low=1, high=128) != 1:
        raise unsupported("n", "The local model gives one choice.")
    stream = fields.flag("stream", default=False)
    if fields.has("stream_options") and not stream:
        raise invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
        )
    limit = "max_completion_tokens" if fields.has("max_completion_tokens") else "max_tokens"
    return ChatRequest(
        model=model,
        messages=_messages(fields),
        stream=stream,
        include_usage=fields.inner("stream_options").flag("include_usage", default=False),
        most_tokens=fields.whole(limit, low=1, high=MOST_COMPLETION) if fields.has(limit) else None,
        stop=_stops(fields),
        schema=read_schema(fields),
    )


def _messages(fields: Fields) -> tuple[Message, ...]:
    given = fields.items("messages")
    if not given:
        raise invalid("Invalid 'messages': empty array.", "messages", "empty_array")
    return tuple(_message(value, n) for n, value in enumerate(given))


def _message(value: object, n: int) -> Message:
    message = as_fields(value, f"messages[{n}]")
    role = message.choice("role", _ROLES)
    content = message.values.get("content")
    if content is None and role != "assistant":
        raise missing(message.name("content"))
    if not isinstance(content, str | list | None):
        raise wrong_type(message.name("content"), "a string or an array of parts")
    for part in content if isinstance(content, list) else []:
        kind = as_fields(part, message.name("content")).text("type")
        if kind not in {"text", "refusal"}:
            raise unsupported(
                message.name("content"), f"The local model cannot read parts of type '{kind[:40]}'."
            )
    return Message(role=role, text=plain_text(content))


def _stops(fields: Fields) -> tuple[str, ...]:
    value = fields.values.get("stop")
    stops = [value] if isinstance(value, str) else value or []
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(s, str) and s for s in stops)
    ):
        raise wrong_type("stop", f"a string or an array of at most {MOST_STOPS} strings")
    return tuple(str(stop) for stop in stops)

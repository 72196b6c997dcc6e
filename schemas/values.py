"""Shapes that several events share: strict models, metadata, messages, and the checks on plain text and JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.ids import NAME_PATTERN

MAX_SAFE_INTEGER = 2**53
MAX_SEQUENCE = 2**63 - 1
MAX_DEPTH = 64
MAX_METADATA_KEYS = 64


class Shape(BaseModel):
    """A shape on the wire. The gate reads it strictly, workers tolerantly (`schemas.registry`).

    The gate forbids unknown fields and coercion; a worker ignores unknown fields, so that an older worker
    survives a newer producer. Neither echoes its input in an error (promise P8).
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


def no_nul(text: str) -> str:
    """Refuse what PostgreSQL cannot keep: NUL characters and lone surrogates."""
    if "\x00" in text:
        raise ValueError("contains a NUL character, which cannot be stored")
    if text.isascii():  # known without looking
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("is not valid UTF-8 text") from error
    return text


def plain_json(value: Any, depth: int = 0) -> Any:
    """Refuse JSON that another system could not read back as it was sent."""
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        no_nul(value)
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise ValueError("holds an integer beyond 2**53; send it as a string")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN is unequal to itself
            raise ValueError("holds NaN or an infinity")
    elif isinstance(value, list):
        for item in value:
            plain_json(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            no_nul(key)
            plain_json(item, depth + 1)
    else:
        raise ValueError("is not JSON")
    return value


Text = Annotated[str, AfterValidator(no_nul)]
NonEmpty = Annotated[str, AfterValidator(no_nul), Field(min_length=1)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Collections, datasets, templates and aliases: lower-case letters, digits, dot, dash and underscore."""
ThingId = Annotated[str, AfterValidator(no_nul), Field(min_length=1, max_length=512)]
"""A caller's own id of a document, question or event: any characters."""
Json = Annotated[Any, AfterValidator(plain_json)]
Metadata = Annotated[dict[str, Any], AfterValidator(plain_json), Field(max_length=MAX_METADATA_KEYS)]
Sequence = Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]


class Message(Shape):
    """One message of a conversation, in the shape of OpenAI's chat JSONL."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Json = None
    name: NonEmpty | None = None
    weight: Literal[0, 1] | None = None
    tool_calls: Json = None
    tool_call_id: NonEmpty | None = None


class Turn(Shape):
    """One earlier turn of a question's history."""

    role: Literal["user", "assistant"]
    content: NonEmpty

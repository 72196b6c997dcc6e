"""The raw bytes of a model API's replies become vectors, texts and deltas here, without the SDK's models in between."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from infra.llm_errors import stream_error
from schemas.errors import CallFailed, Refused

UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Embedded:
    """What an embeddings call brought.

    Attributes:
        vectors: float32[n, dim], finite, unit length, in the order of the texts.
        tokens: what the provider counted.
    """

    vectors: npt.NDArray[np.float32]
    tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply of a chat model.

    Attributes:
        model: the model that answered, as the provider names it.
        finish_reason: `stop`, or `length` when the reply was cut at max_tokens.
    """

    text: str
    model: str
    tokens_in: int
    tokens_out: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed reply; only the last one has a finish reason.

    Attributes:
        tokens_in: None where the provider does not count in streams.
    """

    text: str = ""
    finish_reason: str | None = None
    model: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None


def read_embeddings(body: bytes, *, count: int, dimensions: int) -> Embedded:
    """Decode an embeddings reply; base64 as asked for, or float lists from servers that know only those.

    Raises:
        CallFailed: not JSON, not `count` vectors, a wrong dimension, NaN or infinity, or a vector of length zero;
            `field` is `input[i]` where one input is at fault.
    """
    reply = _object(body)
    data = reply.get("data")
    if not isinstance(data, list) or len(data) != count:
        got = len(data) if isinstance(data, list) else 0
        raise CallFailed(f"the model API returned {got} embeddings for {count} inputs")
    vectors = np.full((count, dimensions), np.nan, dtype=np.float32)
    seen = bytearray(count)
    for position, item in enumerate(data):
        index = item.get("index", position) if isinstance(item, dict) else position
        if not isinstance(index, int) or not 0 <= index < count or seen[index]:
            raise CallFailed("the model API numbered its embeddings wrongly", field=f"input[{position}]")
        seen[index] = 1
        vector = _vector(item.get("embedding") if isinstance(item, dict) else None, index)
        if vector.shape != (dimensions,):
            raise CallFailed(
                f"embedding {index} has {vector.size} dimensions instead of {dimensions}",
                field=f"input[{index}]",
            )
        vectors[index] = vector
    return Embedded(vectors=_unit(vectors), tokens=_count(reply.get("usage"), "prompt_tokens") or 0)


def _vector(value: Any, index: int) -> npt.NDArray[np.float32]:
    try:
        if isinstance(value, str):
            return np.frombuffer(binascii.a2b_base64(value, strict_mode=True), dtype="<f4")
        if isinstance(value, list):
            return np.array(value, dtype=np.float32)
    except (ValueError, TypeError):
        pass  # said below, for every way in which it is no vector
    raise CallFailed(f"embedding {index} is neither base64 nor a list of numbers", field=f"input[{index}]")


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Check that all are finite and not zero; bring those to unit length whose server did not."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0.0))
    if bad.size:
        index = int(bad[0])
        what = "has length zero" if lengths[index] == 0.0 else "holds NaN or an infinity"
        raise CallFailed(f"embedding {index} {what} ({bad.size} of {len(vectors)})", field=f"input[{index}]")
    if np.any(np.abs(lengths - 1.0) > UNIT_TOLERANCE):
        vectors /= lengths[:, None].astype(np.float32)
    return vectors


def read_reply(body: bytes) -> Reply:
    """Decode a chat completion.

    Raises:
        CallFailed: not JSON, no choice, no text, or no finish reason.
        Refused: the provider's content filter cut it off.
    """
    reply = _object(body)
    choice = _choice(reply)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    reason = choice.get("finish_reason")
    _check_reason(reason)
    if not isinstance(text, str):
        raise CallFailed("the model's reply has no text")
    usage = reply.get("usage")
    return Reply(
        text=text,
        model=str(reply.get("model") or ""),
        tokens_in=_count(usage, "prompt_tokens") or 0,
        tokens_out=_count(usage, "completion_tokens") or 0,
        finish_reason=str(reason),
    )


class StreamReader:
    """Server-sent events of a chat stream: bytes are fed in, texts come out, and the end is checked.

    WHATWG HTML §9.2.6, as far as chat streams use it: `data:` lines, joined until an empty line.
    """

    __slots__ = ("_data", "_reason", "_rest", "_usage", "ended", "model")

    def __init__(self) -> None:
        """Begin with an empty stream."""
        self._rest = b""
        self._data: list[bytes] = []
        self._reason: str | None = None
        self.model: str | None = None
        self._usage: Any = None
        self.ended = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Texts that this piece of the stream completes.

        Raises:
            CallFailed: an event is not JSON.
            PenstockError: the provider reported an error inside the stream.
        """
        # A CR at the very end may be half of a CRLF; both ends of line mean the same here.
        lines = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line.rstrip(b"\r") and self._data:
                event, self._data = b"\n".join(self._data), []
                if event.startswith(b"[DONE]"):
                    self.ended = True
                    return
                text = self._event(_object(event))
                if text:
                    yield text

    def finish(self) -> Delta:
        """The last delta.

        Raises:
            CallFailed: the stream ended without a finish reason.
            Refused: the provider's content filter cut it off.
        """
        _check_reason(self._reason)
        return Delta(
            finish_reason=self._reason,
            model=self.model,
            tokens_in=_count(self._usage, "prompt_tokens"),
            tokens_out=_count(self._usage, "completion_tokens"),
        )

    def _event(self, event: dict[str, Any]) -> str:
        error = event.get("error")
        if error:
            code = error.get("code") or error.get("type") if isinstance(error, dict) else None
            raise stream_error(str(code) if code else None)
        self.model = str(event["model"]) if event.get("model") else self.model
        self._usage = event.get("usage") or self._usage
        if not event.get("choices"):
            return ""  # the last event holds the usage alone
        choice = _choice(event)
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        return text if isinstance(text, str) else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise CallFailed("the model API's reply is not JSON") from None
    if not isinstance(value, dict):
        raise CallFailed("the model API's reply is not an object")
    return value


def _choice(reply: dict[str, Any]) -> dict[str, Any]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise CallFailed("the model's reply has no choice")
    return choices[0]


def _check_reason(reason: Any) -> None:
    if reason == "content_filter":
        raise Refused("the provider's content filter cut the reply off", provider_code="content_filter")
    if not reason:
        raise CallFailed("the model's reply ended without a finish reason")


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else None

"""A finished completion passes through here and goes on cut into the server-sent events of a stream."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

_PIECE = re.compile(r"\s*\S+\s*$|\s*\S+|\s+$")


def pieces(text: str) -> list[str]:
    """A text cut before its words, so that the pieces joined are the text."""
    return _PIECE.findall(text)


def frame(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def stream_frames(
    head: dict[str, object], text: str, finish: str | None, usage: Mapping[str, object] | None
) -> tuple[bytes, ...]:
    """The events of one streamed completion.

    Args:
        head: id, created, model and so on, the same in every chunk.
        text: the content.
        finish: the finish reason; None leaves its chunk out, as a broken provider does.
        usage: sent in a chunk of its own, without choices, when it was asked for.
    """

    def chunk(delta: Mapping[str, object], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        more = {"usage": None} if usage is not None else {}
        return frame({**head, "object": "chat.completion.chunk", "choices": [choice], **more})

    frames = [chunk({"role": "assistant", "content": "", "refusal": None}, None)]
    frames += [chunk({"content": piece}, None) for piece in pieces(text)]
    if finish is not None:
        frames.append(chunk({}, finish))
    if usage is not None:
        frames.append(frame({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}))
    return (*frames, b"data: [DONE]\n\n")

"""What an endpoint says passes through here as one value, and goes on to the door, which may damage it on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from starlette.requests import Request

from infra.local.model.faults import Fault


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call would have cost: inputs, tokens read, tokens written."""

    inputs: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply, or, with `frames`, the server-sent events of a stream.

    The first frame of a stream is sent at once; the frames after it are the answer's tokens.
    """

    body: bytes = b""
    status: int = 200
    media: str = "application/json"
    frames: tuple[bytes, ...] | None = None
    usage: Usage = field(default_factory=Usage)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request at an endpoint: the whole body, and the fault that this call has to show, if any."""

    request: Request
    body: bytes
    fault: Fault | None

    @property
    def id(self) -> str:
        """The id in the path."""
        return str(self.request.path_params["id"])

    def shows(self, kind: str) -> bool:
        """Whether the endpoint itself has to show this fault."""
        return self.fault is not None and self.fault.kind == kind


def json_reply(value: object, *, usage: Usage | None = None, status: int = 200) -> Reply:
    """A JSON reply."""
    return Reply(body=orjson.dumps(value), status=status, usage=usage or Usage())


def listing(objects: list[dict[str, object]], *, has_more: bool) -> Reply:
    """A page of objects as OpenAI lists them."""
    return json_reply(
        {
            "object": "list",
            "data": objects,
            "has_more": has_more,
            "first_id": objects[0]["id"] if objects else None,
            "last_id": objects[-1]["id"] if objects else None,
        }
    )

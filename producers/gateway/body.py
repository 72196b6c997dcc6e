"""A request's bytes become JSON here, once and strictly, and go on to the route that asked for them.

The size is counted while it streams, nothing is decompressed, and `schemas.strict_json` reads what is left.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from producers.gateway.problems import UnsupportedMediaType
from schemas.errors import BadInput, TooLarge
from schemas.registry import first_problem
from schemas.strict_json import parse_json

MIB = 1024 * 1024
MAX_BODY = MIB
MAX_DOCUMENT = 50 * MIB
MAX_BATCH = 16 * MIB
MAX_ITEMS = 1000
MAX_DISCARDED = 64 * MIB

Model = TypeVar("Model", bound=BaseModel)


async def read_bytes(request: Request, limit: int) -> bytes:
    """The whole body, never more than `limit` bytes of it in memory.

    Raises:
        TooLarge: it is larger, whether or not its length was announced.
        UnsupportedMediaType: it is compressed, which nobody asked for.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType("the body is compressed", field="Content-Encoding", fix="send it as it is")
    announced = request.headers.get("content-length", "")
    chunks: list[bytes] = []
    size = int(announced) if announced.isascii() and announced.isdigit() and int(announced) > limit else 0
    discarded = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
                continue
            # A client that is still sending would see a reset connection and not the answer.
            chunks.clear()
            discarded += len(chunk)
            if discarded > MAX_DISCARDED:
                break
    except ClientDisconnect:
        raise BadInput("the body ended before its length was reached", field="body") from None
    if size > limit:
        shown = f"{limit // MIB} MiB" if limit >= MIB else f"{limit} bytes"
        raise TooLarge(f"the body is larger than {shown}", field="body")
    return b"".join(chunks)


def media_type(request: Request) -> str:
    """The Content-Type without parameters, in lower case.

    Raises:
        UnsupportedMediaType: another charset than UTF-8 is announced.
    """
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in {"utf-8", "utf8"}:
            raise UnsupportedMediaType("only UTF-8 is read", field="Content-Type", fix="send charset=utf-8")
    return kind.strip().lower()


async def read_json(request: Request, limit: int = MAX_BODY) -> Any:
    """The body of a route that takes plain JSON.

    Raises:
        UnsupportedMediaType: the Content-Type says that it is something else.
    """
    kind = media_type(request)
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType(
            "the body must be JSON", field="Content-Type", fix="send Content-Type: application/json"
        )
    return parse_json(await read_bytes(request, limit))


async def read_model(request: Request, model: type[Model], limit: int = MAX_BODY) -> Model:
    """The body as a model, without coercion and without unknown fields.

    Raises:
        BadInput: names the field.
    """
    value = await read_json(request, limit)
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object", field="body")
    return check_model(model, value)


def check_model(model: type[Model], value: Any) -> Model:
    """Hold a value against a model, as strictly as the gate.

    Raises:
        BadInput: names the field.
    """
    try:
        return model.model_validate(value, strict=True, extra="forbid")
    except ValidationError as error:
        raise first_problem(error, "") from None

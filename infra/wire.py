"""Jobs and their results become JSON here on their way to Redis, and values again on their way back. Never pickle.

Used as arq's `job_serializer` and `job_deserializer`. What JSON has no word for is an object with the single key
`"!"`-something, so that plain data that happens to look alike is escaped and comes back as it went in:

    {"!": class, "message": text}   an exception; rebuilt only from the allow-list, otherwise as `RemoteError`
    {"!t": "datetime"|"date"|"time"|"uuid"|"bytes"|"decimal"|"timedelta"|"set", "v": …}
    {"!d": {…}}                     a mapping one of whose own keys begins with "!"

Tuples come back as lists; enums as their values; pydantic models, dataclasses and numpy scalars as plain data. NaN,
infinity and integers beyond 64 bits are refused, because JSON readers disagree on them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import builtins
import dataclasses
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import orjson
from arq.jobs import DeserializationError, ResultNotFound, SerializationError
from arq.worker import JobExecutionFailed
from pydantic import BaseModel

from schemas import errors

MAX_DEPTH: Final = 64
BITS: Final = 63

_BUILTIN: Final = (
    "ArithmeticError AssertionError AttributeError ConnectionError ConnectionResetError EOFError Exception "
    "FileNotFoundError IndexError KeyError LookupError MemoryError NotImplementedError OSError OverflowError "
    "PermissionError RecursionError RuntimeError TimeoutError TypeError UnicodeError ValueError ZeroDivisionError"
)


class RemoteError(Exception):
    """An exception of a class that is not on the allow-list; its text begins with the class's name."""


def _allowed() -> dict[str, Callable[[str], BaseException]]:
    allowed: dict[str, Callable[[str], BaseException]] = {
        name: getattr(builtins, name) for name in _BUILTIN.split()
    }
    for vendor in (JobExecutionFailed, SerializationError, DeserializationError, ResultNotFound):
        allowed[vendor.__name__] = vendor
    allowed["CancelledError"] = asyncio.CancelledError
    ours = (v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.PenstockError))
    allowed.update({kind.__name__: kind for kind in ours})
    return allowed


ALLOWED: Final[Mapping[str, Callable[[str], BaseException]]] = _allowed()


def dumps(value: Any) -> bytes:
    """Encode a value.

    Raises:
        TypeError: the value, or something in it, has no encoding.
        ValueError: NaN, infinity, an integer beyond 64 bits, a lone surrogate, or nesting deeper than 64.
    """
    plain = _encode(value, 0)
    try:
        return orjson.dumps(plain)
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None


def loads(data: bytes | str) -> Any:
    """Decode what `dumps` made, or any plain JSON.

    Raises:
        ValueError: it is neither.
    """
    value = orjson.loads(data)
    # All of our tags begin with "!; most payloads have none, and then there is nothing to look for.
    return _decode(value) if (b'"!' in data if isinstance(data, bytes) else True) else value


def _encode(value: Any, depth: int) -> Any:  # noqa: PLR0912 - one branch per type, each one line.
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if kind is int:
        if value.bit_length() > BITS:
            raise ValueError("integer beyond 64 bits")
        return value
    if kind is float:
        if not math.isfinite(value):
            raise ValueError("NaN and infinity have no encoding")
        return value
    if isinstance(value, Mapping):
        return _encode_mapping(value, depth)
    if isinstance(value, list | tuple):
        return [_encode(item, depth + 1) for item in value]
    if isinstance(value, BaseException):
        return {"!": type(value).__name__, "message": _message(value)}
    if isinstance(value, Enum):
        return _encode(value.value, depth + 1)
    if isinstance(value, BaseModel):
        return _encode(value.model_dump(), depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _encode(fields, depth + 1)
    if isinstance(value, str | int | float):
        return _encode(_base(value), depth)
    return _tagged(value, depth)


def _base(value: str | float) -> Any:
    """A subclass of a JSON type as that type."""
    return next(base(value) for base in (str, int, float) if isinstance(value, base))


def _encode_mapping(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    escape = False
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"keys must be text, not {type(key).__name__}")
        escape = escape or key.startswith("!")
        out[key] = _encode(item, depth + 1)
    return {"!d": out} if escape else out


def _tagged(value: Any, depth: int) -> Any:
    match value:
        case datetime() | date() | time():  # a datetime is a date: its own name is the tag.
            return {"!t": _stem(value), "v": value.isoformat()}
        case UUID() | Decimal():
            return {"!t": type(value).__name__.lower(), "v": str(value)}
        case bytes() | bytearray() | memoryview():
            return {"!t": "bytes", "v": base64.b64encode(value).decode()}
        case timedelta():
            return {"!t": "timedelta", "v": [value.days, value.seconds, value.microseconds]}
        case set() | frozenset():
            return {"!t": "set", "v": [_encode(item, depth + 1) for item in value]}
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        return _encode(value.item(), depth + 1)  # a numpy scalar
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _stem(value: date | time) -> str:
    return next(
        name
        for name, kind in (("datetime", datetime), ("date", date), ("time", time))
        if isinstance(value, kind)
    )


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "uuid": UUID,
    "decimal": Decimal,
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "timedelta": lambda parts: timedelta(*parts),
    "set": set,
}


def _decode(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return [_decode(item) for item in value]
    if kind is not dict:
        return value
    if "!" in value:
        return _rebuild(value)
    if "!t" in value:
        reader = _READERS.get(value["!t"]) if isinstance(value["!t"], str) else None
        if reader is None:
            raise ValueError("unknown tag")
        try:
            return reader(_decode(value.get("v")))
        except (TypeError, ArithmeticError, binascii.Error, AttributeError) as error:
            raise ValueError(f"bad {value['!t']}") from error
    if "!d" in value:
        inner = value["!d"]
        if type(inner) is not dict:
            raise ValueError("bad escape")
        return {key: _decode(item) for key, item in inner.items()}
    return {key: _decode(item) for key, item in value.items()}


def _message(error: BaseException) -> str:
    if isinstance(error, errors.PenstockError):
        return error.message
    return str(error.args[0]) if len(error.args) == 1 else str(error)


def _rebuild(value: Mapping[str, Any]) -> BaseException:
    name, message = value["!"], value.get("message", "")
    if not isinstance(name, str) or not isinstance(message, str):
        raise ValueError("bad exception")  # noqa: TRY004 - the bytes are at fault, not the caller.
    make = ALLOWED.get(name)
    if make is None:
        return RemoteError(f"{name}: {message}" if message else name)
    return make(message)

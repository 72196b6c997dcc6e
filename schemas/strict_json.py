"""Bytes become JSON here, in one way only: what two parsers could read differently is refused.

Strict means: UTF-8 without a byte order mark, no duplicate keys, no NaN, at most 64 levels. Two parsers that read the
same bytes differently are how checks are passed by.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from schemas.errors import BadInput
from schemas.values import MAX_DEPTH


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadInput("the body holds a JSON object with the same key twice", field="body")
    return found


def _constant(name: str) -> NoReturn:
    raise BadInput(f"the body holds {name}, which is not JSON", field="body")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def parse_json(raw: bytes) -> Any:
    """Read JSON strictly.

    Raises:
        BadInput: says what is wrong and where; nothing of the text is repeated.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"the body is not valid UTF-8 (byte {error.start})", field="body") from None
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"the body is not JSON (line {error.lineno}, column {error.colno})", field="body"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise BadInput("the body holds a number with too many digits", field="body") from None
    # A value cannot be deeper than it has brackets: most bodies need no walk.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is dict:
                one = one.values()  # noqa: PLW2901 - what it holds
            elif kind is not list:
                continue
            for item in one:
                # Exact types: a parser makes no others, and this loop sees every value of a batch.
                if type(item) is dict or type(item) is list:
                    below.append(item)  # noqa: PERF401 - a comprehension would be made per container
        if not below:
            return
        level = below
    raise _too_deep()


def _too_deep() -> BadInput:
    return BadInput(f"the body is nested deeper than {MAX_DEPTH} levels", field="body")

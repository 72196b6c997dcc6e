"""A caller's filter on metadata becomes one jsonpath predicate here, which the search function takes as a parameter.

    {"lang": "de", "year": {"$gte": 2020}, "$or": [{"team": {"$in": ["a", "b"]}}, {"draft": {"$exists": false}}]}

Every condition is `exists(path ? (test))`: true or false, never unknown, so that `$not` and `$ne` also find documents
that lack the field. A path names nested fields by dots; where it meets a list, one element that passes is enough.
Dates are compared as text, so write them in ISO 8601.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from schemas.errors import BadInput

MAX_NODES = 64
MAX_DEPTH = 16
MAX_LIST = 256
MAX_PATH = 8
MAX_TEXT = 1000

_COMPARISONS = {"$eq": "==", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
OPERATORS = (
    "$eq",
    "$ne",
    "$in",
    "$nin",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$exists",
    "$contains",
    "$and",
    "$or",
    "$not",
)


def compile_filter(condition: Any) -> str | None:
    """Compile a filter.

    Args:
        condition: the filter as JSON; None or an empty object filters nothing.

    Returns:
        A jsonpath predicate for `metadata @@ $n::jsonpath`, or None.

    Raises:
        BadInput: names the operator or path at fault, and where it stands.
    """
    if condition is None or condition == {}:
        return None
    return _Compiler().group(condition, "filter", 0)


class _Compiler:
    """Counts nodes while it compiles."""

    def __init__(self) -> None:
        self._nodes = 0

    def group(self, condition: Any, where: str, depth: int) -> str:
        """An object: all of its members must hold."""
        if not isinstance(condition, Mapping):
            raise BadInput(f"{where} must be an object", field=where)
        if depth > MAX_DEPTH:
            raise BadInput(f"the filter is nested deeper than {MAX_DEPTH} levels", field=where)
        if not condition:
            raise BadInput(f"{where} is empty", field=where)
        parts = [self._member(name, value, where, depth) for name, value in condition.items()]
        return _joined(parts, "&&")

    def _member(self, name: Any, value: Any, where: str, depth: int) -> str:
        here = f"{where}.{_shown(name)}"
        if not isinstance(name, str):
            raise BadInput("names in a filter are text", field=where)
        if not name.startswith("$"):
            return self._field(_path(name, here), value, here, depth)
        self._count(here)
        if name in {"$and", "$or"}:
            if not isinstance(value, list) or not value:
                raise BadInput(f"{_shown(name)} needs a list of filters", field=here)
            parts = [self.group(one, f"{here}[{index}]", depth + 1) for index, one in enumerate(value)]
            return _joined(parts, "&&" if name == "$and" else "||")
        if name == "$not":
            return f"!({self.group(value, here, depth + 1)})"
        if name in OPERATORS:
            raise BadInput(f'{name} belongs under a field, as in {{"field": {{"{name}": …}}}}', field=here)
        raise _unknown(name, here)

    def _field(self, path: str, value: Any, where: str, depth: int) -> str:
        """A field: a plain value means $eq, an object holds operators that must all hold."""
        if not isinstance(value, Mapping):
            self._count(where)
            return f"exists({path} ? (@ == {_scalar(value, where)}))"
        if not value:
            raise BadInput(f"{where} has no operator", field=where)
        if depth > MAX_DEPTH:
            raise BadInput(f"the filter is nested deeper than {MAX_DEPTH} levels", field=where)
        parts = [
            self._operator(path, name, operand, f"{where}.{_shown(name)}", depth)
            for name, operand in value.items()
        ]
        return _joined(parts, "&&")

    def _operator(self, path: str, name: Any, operand: Any, where: str, depth: int) -> str:
        self._count(where)
        if name == "$not":
            if not isinstance(operand, Mapping):
                raise BadInput("$not needs an object of operators", field=where)
            return f"!({self._field(path, operand, where, depth + 1)})"
        compiled = _TESTS.get(name) if isinstance(name, str) else None
        if compiled is None:
            raise _unknown(name, where)
        return compiled(path, operand, where)

    def _count(self, where: str) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise BadInput(
                f"the filter has more than {MAX_NODES} conditions", field=where, fix="use $in, or filter less"
            )


def _compare(sign: str) -> Callable[[str, Any, str], str]:
    def test(path: str, operand: Any, where: str) -> str:
        if sign != "==" and (isinstance(operand, bool) or not isinstance(operand, str | int | float)):
            raise BadInput("an order needs a number or a text", field=where)
        return f"exists({path} ? (@ {sign} {_scalar(operand, where)}))"

    return test


def _not_equal(path: str, operand: Any, where: str) -> str:
    return f"!(exists({path} ? (@ == {_scalar(operand, where)})))"


def _in(path: str, operand: Any, where: str) -> str:
    if not isinstance(operand, list) or not operand:
        raise BadInput("a list of values is needed", field=where)
    if len(operand) > MAX_LIST:
        raise BadInput(f"the list has more than {MAX_LIST} values", field=where)
    tests = " || ".join(f"@ == {_scalar(one, f'{where}[{index}]')}" for index, one in enumerate(operand))
    return f"exists({path} ? ({tests}))"


def _not_in(path: str, operand: Any, where: str) -> str:
    return f"!({_in(path, operand, where)})"


def _exists(path: str, operand: Any, where: str) -> str:
    if not isinstance(operand, bool):
        raise BadInput("$exists needs true or false", field=where)
    return f"exists({path})" if operand else f"!(exists({path}))"


def _contains(path: str, operand: Any, where: str) -> str:
    """A list that holds the value, or a text that holds the text."""
    value = _scalar(operand, where)
    # Neither type() nor the item before it is unwrapped, so a list of texts is not searched inside its texts.
    held = f'({path}.type() == "array" && exists({path} ? (@ == {value})))'
    if not isinstance(operand, str):
        return held
    return f'({held} || ({path}.type() == "string" && {path} like_regex {value} flag "q"))'


_TESTS: dict[str, Callable[[str, Any, str], str]] = {
    **{name: _compare(sign) for name, sign in _COMPARISONS.items()},
    "$ne": _not_equal,
    "$in": _in,
    "$nin": _not_in,
    "$exists": _exists,
    "$contains": _contains,
}


def _joined(parts: list[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else "(" + f" {word} ".join(parts) + ")"


def _path(name: str, where: str) -> str:
    keys = name.split(".")
    if not all(keys) or len(keys) > MAX_PATH or len(name) > MAX_TEXT:
        raise BadInput(
            f"the path {_shown(name)} is not 1 to {MAX_PATH} names joined by dots",
            field=where,
            fix="write a.b.c",
        )
    return "$" + "".join(f".{_text(key, where)}" for key in keys)


def _scalar(value: Any, where: str) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):
        if abs(value) > 2**53:
            raise BadInput("a number beyond 2**53 cannot be compared", field=where)
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput("NaN and infinity cannot be compared", field=where)
        return repr(value)
    raise BadInput("a text, number, true, false or null is needed here", field=where)


def _text(value: str, where: str) -> str:
    """A jsonpath string: the escapes of JSON, of which jsonpath knows all."""
    if len(value) > MAX_TEXT:
        raise BadInput(f"a text in a filter is longer than {MAX_TEXT} characters", field=where)
    if "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise BadInput("a text in a filter holds a character that cannot be stored", field=where)
    return json.dumps(value, ensure_ascii=False)


def _unknown(name: Any, where: str) -> BadInput:
    return BadInput(
        f"{_shown(name)} is not an operator", field=where, fix=f"use one of {', '.join(OPERATORS)}"
    )


def _shown(name: Any) -> str:
    """A name of the caller's, cut so that an error stays short."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(name)[:40])

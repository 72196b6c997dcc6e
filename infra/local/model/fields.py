"""JSON bodies and query strings pass through here and go on as values of the types that OpenAI documents."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import orjson

from infra.local.model.errors import ApiError, invalid, missing, wrong_type, wrong_value

_NOTHING = object()


def read_json(body: bytes) -> dict[str, object]:
    """The body as a JSON object.

    Raises:
        ApiError: it is not one.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "We could not parse the JSON body of your request.") from error
    if not isinstance(value, dict):
        raise ApiError(400, "The JSON body of your request has to be an object.")
    return value


class Fields:
    """Typed access to a JSON object; every error names the parameter with its path."""

    def __init__(self, values: Mapping[str, object], path: str = "") -> None:
        self.values = values
        self._path = path

    def only(self, known: Collection[str]) -> None:
        """Refuse parameters that OpenAI does not document."""
        for name in self.values:
            if name not in known:
                raise invalid(
                    f"Unknown parameter: '{self.name(name)}'.", self.name(name), "unknown_parameter"
                )

    def name(self, name: str) -> str:
        """The full path of a parameter."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Whether the parameter is there and not null."""
        return self.values.get(name) is not None

    def text(self, name: str, default: object = _NOTHING, *, longest: int | None = None) -> str:
        """A string."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise wrong_type(self.name(name), "a string")
        if longest is not None and len(value) > longest:
            raise invalid(
                f"Invalid '{self.name(name)}': string too long. Expected at most {longest} characters.",
                self.name(name),
                "string_above_max_length",
            )
        return value

    def choice(self, name: str, allowed: Collection[str], default: object = _NOTHING) -> str:
        """One of some strings."""
        value = self.text(name, default)
        if value not in allowed:
            raise wrong_value(self.name(name), f"supported values are {', '.join(sorted(allowed))}")
        return value

    def whole(self, name: str, default: object = _NOTHING, *, low: int, high: int) -> int:
        """An integer within bounds."""
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong_type(self.name(name), "an integer")
        if not low <= value <= high:
            raise wrong_value(self.name(name), f"expected an integer from {low} to {high}")
        return value

    def number(self, name: str, default: object = _NOTHING, *, low: float, high: float) -> float:
        """A number within bounds."""
        value = self._get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong_type(self.name(name), "a number")
        if not low <= value <= high:
            raise wrong_value(self.name(name), f"expected a number from {low} to {high}")
        return float(value)

    def flag(self, name: str, default: object = _NOTHING) -> bool:
        """A boolean."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise wrong_type(self.name(name), "a boolean")
        return value

    def items(self, name: str) -> list[object]:
        """An array."""
        value = self._get(name, _NOTHING)
        if not isinstance(value, list):
            raise wrong_type(self.name(name), "an array")
        return value

    def inner(self, name: str) -> Fields:
        """An object; empty when it is absent or null."""
        return as_fields(self._get(name, {}), self.name(name))

    def _get(self, name: str, default: object) -> object:
        value = self.values.get(name)
        if value is None:
            if default is _NOTHING:
                raise missing(self.name(name))
            return default
        return value


def as_fields(value: object, path: str) -> Fields:
    """A JSON value that has to be an object."""
    if not isinstance(value, dict):
        raise wrong_type(path, "an object")
    return Fields(value, path)


def read_limit(query: Mapping[str, str], default: int, highest: int) -> int:
    """The `limit` of a listing."""
    given = query.get("limit")
    if given is None:
        return default
    if not given.isdecimal() or not 1 <= int(given) <= highest:
        raise wrong_value("limit", f"expected an integer from 1 to {highest}")
    return int(given)

"""JSON comes in as text and leaves as prose: one line per value with the path to it, one paragraph per record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from schemas.errors import Unreadable
from workers.ingest.parsed import MAX_DEPTH, Builder, Parsed, inflated_limit


def read_json(text: str) -> Parsed:
    """Read one JSON value; the items of a list, or of an object's top level, are paragraphs.

    Raises:
        Unreadable: it is not JSON, is nested too deeply, or its paths make it many times longer.
    """
    value = _load(text, "the document")
    builder = Builder()
    room = inflated_limit(len(text))
    for record in value if isinstance(value, list) else [value]:
        room = _write(builder, record, room)
    title = value.get("title") if isinstance(value, dict) else None
    return builder.parsed(title if isinstance(title, str) else None)


def read_json_lines(text: str) -> Parsed:
    """Read one JSON value per line; each is a paragraph."""
    builder = Builder()
    room = inflated_limit(len(text))
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            room = _write(builder, _load(line, f"line {number}"), room)
    return builder.parsed()


def _load(text: str, what: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # The vendor's message ends in a position and quotes nothing of the text.
        raise Unreadable(f"{what} is not valid JSON: {error.msg} at line {error.lineno}") from None


def _write(builder: Builder, record: Any, room: int) -> int:
    lines: list[str] = []
    for line in _lines(record):
        room -= len(line) + 1
        if room < 0:
            raise Unreadable("the JSON becomes too large when every value is written with its path")
        lines.append(line)
    builder.prose("\n".join(lines))
    return room


def _lines(record: Any) -> Iterator[str]:
    """Walk a value in document order without recursion; paths are made one at a time, as they may be long."""
    waiting: list[Iterator[tuple[str, Any]]] = [iter([("", record)])]
    while waiting:
        path, value = next(waiting[-1], (None, None))
        if path is None:
            waiting.pop()
        elif isinstance(value, dict):
            waiting.append(_members(path, value))
        elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
            waiting.append(_items(path, value))
        elif isinstance(value, list):
            yield _line(path, ", ".join(_scalar(item) for item in value))
        else:
            yield _line(path, _scalar(value))
        if len(waiting) > MAX_DEPTH:
            raise Unreadable(f"the JSON is nested deeper than {MAX_DEPTH} levels")


def _members(path: str, value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        yield (f"{path}.{key}" if path else key), item


def _items(path: str, value: list[Any]) -> Iterator[tuple[str, Any]]:
    for index, item in enumerate(value):
        yield f"{path}[{index}]", item


def _line(path: str, text: str) -> str:
    return f"{path}: {text}" if path else text


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    return orjson.dumps(value).decode()

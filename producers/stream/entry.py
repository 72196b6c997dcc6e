"""The fields of a stream entry become an `Event` here, as strictly as at the gateway, or the reason why they cannot.

A field is a CloudEvents attribute under its own name; `data` is JSON. `specversion` may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.envelope import Event, parse_event
from schemas.errors import BadInput, PenstockError, TooLarge
from schemas.strict_json import parse_json

MAX_DATA = 50 * 1024 * 1024


def read_entry(fields: Mapping[bytes, bytes]) -> Event | PenstockError:
    """An entry as an event, or why it is none; nothing of the entry is repeated in the reason."""
    try:
        return parse_event(_attributes(fields))
    except PenstockError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever an entry holds, the entries behind it must get through (P7)
        return BadInput(f"the entry cannot be read ({type(error).__name__})", field="event")


def _attributes(fields: Mapping[bytes, bytes]) -> dict[str, Any]:
    raw: dict[str, Any] = {"specversion": "1.0"}
    for name, value in fields.items():
        attribute = _text(name, "event")
        raw[attribute] = _data(value) if attribute == "data" else _text(value, attribute[:40])
    return raw


def _text(value: bytes, field: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{field} is not valid UTF-8", field=field) from None


def _data(value: bytes) -> Any:
    if len(value) > MAX_DATA:
        raise TooLarge("data is larger than 50 MiB", field="data")
    try:
        return parse_json(value)
    except BadInput as error:
        raise BadInput(error.message.replace("the body", "data"), field="data") from None

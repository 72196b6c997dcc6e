"""An upstream's bytes become an `Event` here, once; what leaves is what the ledger stores.

The envelope is CloudEvents 1.0.2, checked by ourselves: the official JSON schema passes other specversions, wrong
extension names and ``data`` beside ``data_base64``, and the SDK invents a missing id.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from schemas.errors import BadInput
from schemas.registry import check_data
from schemas.strict_json import parse_json
from schemas.values import MAX_SEQUENCE, no_nul, plain_json

ATTRIBUTE = re.compile(r"^[a-z0-9]{1,20}\Z")
TRACEPARENT = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
DATASCHEMA = re.compile(r"^penstock:([a-z_.]+):([1-9][0-9]{0,3})\Z")
TEXT_EXTENSIONS = frozenset({"partitionkey", "dataref", "correlationid", "causationid", "subjectref"})
MAX_ATTRIBUTE = 1024
SUPPLIER = "penstockkey"
"""The extension that notes by which API key or stream examples came, whatever the caller wrote there."""
SUPPLYING = frozenset({"example.recorded", "feedback.received", "training.batch_ready"})
"""Event types of which a dataset bounds what one supplier may give."""


# Not frozen, although nobody changes one: sixteen guarded assignments would be a sixth of what reading an event costs.
@dataclass(slots=True)
class Event:
    """An event that passed the gate.

    Attributes:
        id: the caller's id; with tenant and source it is the idempotency key.
        source: who says it, a URI reference.
        type: one of `schemas.registry.EVENT_TYPES`.
        data: the payload, as it was sent.
        major: the major version of the data.
        sequence: the caller's version number of the subject, if it gave one.
        extensions: further CloudEvents attributes, kept as they came.
    """

    id: str
    source: str
    type: str
    data: dict[str, Any]
    major: int = 1
    subject: str | None = None
    time: datetime | None = None
    sequence: int | None = None
    partitionkey: str | None = None
    dataref: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    subjectref: str | None = None
    expirytime: datetime | None = None
    traceparent: str | None = None
    extensions: dict[str, Any] = field(default_factory=dict)


def parse_event(raw: Any) -> Event:
    """Read one structured CloudEvent (a JSON object) strictly.

    Raises:
        BadInput: names the attribute at fault. Nothing of the input is echoed.
    """
    if not isinstance(raw, dict):
        raise BadInput("an event must be a JSON object", field="event")
    # Few attributes are ever given: those that are not cost nothing.
    more = [name for name in raw if name not in _ALWAYS]
    unknown = [name for name in more if name not in _OPTIONAL]
    for name in unknown:
        if not ATTRIBUTE.match(name):
            raise BadInput("attribute names are 1 to 20 lower-case letters and digits", field=_shown(name))
    if raw.get("specversion") != "1.0":
        raise BadInput('specversion must be "1.0"', field="specversion")
    kind = _required(raw, "type")
    extensions = {name: _extension(name, raw[name]) for name in unknown}
    name, source = _required(raw, "id"), _required(raw, "source")
    major = _major(raw, kind) if "dataschema" in raw else 1
    data = check_data(kind, major, _data(raw))
    rest = {name: read(raw, name) for name in more if (read := _OPTIONAL.get(name)) is not None}
    return Event(id=name, source=source, type=kind, data=data, major=major, extensions=extensions, **rest)


def _shown(name: str) -> str:
    """A caller's attribute name, cut so that an error cannot carry a document."""
    return re.sub(r"[^\x20-\x7e]", "?", name[:40])


def _required(raw: dict[str, Any], name: str) -> str:
    value = _text(raw, name)
    if value is None:
        raise BadInput(f"{name} is required", field=name)
    return value


def _text(raw: dict[str, Any], name: str) -> str | None:
    value = raw.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise BadInput(f"{name} must be a non-empty string", field=name)
    if len(value) > MAX_ATTRIBUTE:
        raise BadInput(f"{name} is longer than {MAX_ATTRIBUTE} characters", field=name)
    return value if value.isascii() and "\x00" not in value else _clean(value, name)


def _clean(value: str, name: str) -> str:
    try:
        return no_nul(value)
    except ValueError as error:
        raise BadInput(f"{name} {error}", field=name) from None


def _major(raw: dict[str, Any], kind: str) -> int:
    schema = _text(raw, "dataschema")
    if schema is None:
        return 1
    match = DATASCHEMA.match(schema)
    if match is None or match[1] != kind:
        raise BadInput(f"dataschema must be penstock:{_shown(kind)}:<major>", field="dataschema")
    return int(match[2])


def _time(raw: dict[str, Any], name: str) -> datetime | None:
    text = _text(raw, name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{name} must be an RFC 3339 timestamp", field=name) from None
    if moment.tzinfo is UTC:
        return moment
    if moment.tzinfo is None:
        raise BadInput(f"{name} needs a time zone", field=name)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise BadInput(f"{name} lies outside the calendar", field=name) from None


def _sequence(raw: dict[str, Any], name: str) -> int | None:
    value = raw[name]
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQUENCE:
        raise BadInput("sequence must be an integer from 0 to 2**63 - 1", field="sequence")
    return value


def _traceparent(raw: dict[str, Any], name: str) -> str | None:
    value = _text(raw, name)
    if value is not None and not TRACEPARENT.match(value):
        raise BadInput("traceparent must be a W3C trace context", field="traceparent")
    return value


def _extension(name: str, value: Any) -> Any:
    if not isinstance(value, str | int | bool) and value is not None:
        raise BadInput("extensions are strings, integers or booleans", field=name)
    try:
        plain_json(value)
    except ValueError as error:
        raise BadInput(f"{name} {error}", field=name) from None
    if isinstance(value, str) and len(value) > MAX_ATTRIBUTE:
        raise BadInput(f"{name} is longer than {MAX_ATTRIBUTE} characters", field=name)
    return value


def _data(raw: dict[str, Any]) -> Any:
    kind = _text(raw, "datacontenttype") if "datacontenttype" in raw else None
    if kind is not None and not re.match(r"^application/([a-z0-9.+-]+\+)?json *(;.*)?$", kind, re.IGNORECASE):
        raise BadInput("datacontenttype must be application/json", field="datacontenttype")
    if "data_base64" not in raw:
        if "data" not in raw:
            raise BadInput("data is required", field="data")
        return raw["data"]
    if "data" in raw:
        raise BadInput("give data or data_base64, not both", field="data_base64")
    try:
        return parse_json(base64.b64decode(raw["data_base64"], validate=True))
    except (binascii.Error, ValueError, TypeError, BadInput):
        raise BadInput("data_base64 must be base64 of JSON", field="data_base64") from None


_ALWAYS = frozenset(
    {"id", "source", "type", "specversion", "data", "data_base64", "datacontenttype", "dataschema"}
)
"""Attributes that are looked at in their own order."""
_OPTIONAL: dict[str, Callable[[dict[str, Any], str], Any]] = {
    **dict.fromkeys(sorted(TEXT_EXTENSIONS | {"subject"}), _text),
    "time": _time,
    "expirytime": _time,
    "sequence": _sequence,
    "traceparent": _traceparent,
}
"""Attributes with a field of their own in `Event`, and what reads them."""
ATTRIBUTES = _ALWAYS | _OPTIONAL.keys()
"""Every attribute that is known by name; others are extensions."""

from __future__ import annotations

import json

import pytest

from producers.stream.entry import read_entry
from schemas.envelope import Event
from schemas.errors import PenstockError

DATA = {"collection": "books", "document_id": "a", "content": "Water."}
GOOD: dict[bytes, bytes] = {
    b"id": b"7",
    b"source": b"wiki",
    b"type": b"document.added",
    b"data": json.dumps(DATA).encode(),
}


def test_fields_are_attributes() -> None:
    """Numbers and further attributes come as text; specversion may be left out or said."""
    read = read_entry(
        {**GOOD, b"specversion": b"1.0", b"sequence": b"12", b"subjectref": b"p-7", b"team": b"blue"}
    )
    assert isinstance(read, Event)
    assert (read.id, read.source, read.sequence, read.subjectref) == ("7", "wiki", 12, "p-7")
    assert (read.data, read.extensions) == (DATA, {"team": "blue"})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({b"id": None}, "id"),
        ({b"type": b"nonsense"}, "type"),
        ({b"type": b"document.indexed"}, "type"),
        ({b"specversion": b"0.3"}, "specversion"),
        ({b"data": None}, "data"),
        ({b"data": b"{"}, "data"),
        ({b"data": b'{"a": 1, "a": 2}'}, "data"),
        ({b"data": b"[" * 100_000}, "data"),
        ({b"data": b"9" * 10_000}, "data"),
        ({b"data": b"\xff"}, "data"),
        ({b"data": b'{"collection": "books"}'}, "data.document_id"),
        ({b"source": b"\xff\xfe"}, "source"),
        ({b"\xff": b"x"}, "event"),
        ({b"Upper": b"x"}, "Upper"),
        ({b"sequence": b"-1"}, "sequence"),
    ],
)
def test_what_is_no_event_is_a_reason_and_no_exception(fields: dict[bytes, bytes | None], field: str) -> None:
    """A bad entry names its field, and nothing of it can stop the bridge."""
    given = {name: value for name, value in {**GOOD, **fields}.items() if value is not None}
    read = read_entry(given)
    assert isinstance(read, PenstockError)
    assert read.field == field

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.envelope import parse_event
from schemas.errors import BadInput, UnknownType
from schemas.values import MAX_DEPTH, MAX_SEQUENCE

CANARY = "canary-5f2c"
DATA = {"collection": "c", "document_id": "d", "content": CANARY}
GOOD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "test",
    "type": "document.added",
    "data": DATA,
}


def nested(levels: int) -> dict[str, Any]:
    """Metadata so many levels deep."""
    value: dict[str, Any] = {"k": CANARY}
    for _ in range(levels):
        value = {"k": value}
    return value


def b64(value: Any) -> str:
    """JSON as `data_base64` carries it."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def without(*names: str, **changes: Any) -> dict[str, Any]:
    """The good event, less these attributes, plus these."""
    return {name: value for name, value in {**GOOD, **changes}.items() if name not in names}


def with_data(**changes: Any) -> dict[str, Any]:
    """The good event with other data."""
    return {**GOOD, "data": {**DATA, **changes}}


REFUSED: list[tuple[str, Any, str]] = [
    ("not an object", [CANARY], "event"),
    ("missing id", without("id"), "id"),
    ("empty id", without(id=""), "id"),
    ("number as id", without(id=7), "id"),
    ("long id", without(id="x" * 1025), "id"),
    ("NUL in id", without(id=f"{CANARY}\0"), "id"),
    ("lone surrogate in id", without(id=f"{CANARY}\ud800"), "id"),
    ("missing source", without("source"), "source"),
    ("missing type", without("type"), "type"),
    ("missing specversion", without("specversion"), "specversion"),
    ("specversion 2.0", without(specversion="2.0"), "specversion"),
    ("specversion as a number", without(specversion=1.0), "specversion"),
    ("upper-case attribute", without(partitionKey=CANARY), "partitionKey"),
    ("attribute with an underscore", without(my_key=CANARY), "my_key"),
    ("attribute with a line feed", without(**{"region\n": CANARY}), "region?"),
    ("attribute of 21 characters", without(**{"a" * 21: CANARY}), "a" * 21),
    ("no data", without("data"), "data"),
    ("data null", without(data=None), "data"),
    ("data a list", without(data=[CANARY]), "data"),
    ("data beside data_base64", without(data_base64=b64(DATA)), "data_base64"),
    ("data_base64 not base64", without("data", data_base64="%%%"), "data_base64"),
    ("data_base64 not a string", without("data", data_base64=7), "data_base64"),
    (
        "data_base64 not JSON",
        without("data", data_base64=base64.b64encode(b"\xff" + CANARY.encode()).decode()),
        "data_base64",
    ),
    (
        "data_base64 bottomless",
        without("data", data_base64=base64.b64encode(b"[" * 100_000).decode()),
        "data_base64",
    ),
    ("datacontenttype text", without(datacontenttype="text/plain"), "datacontenttype"),
    ("unknown type", without(type="document.eaten"), "type"),
    ("outgoing type", without(type="document.indexed"), "type"),
    ("internal type", without(type="delivery.due"), "type"),
    ("another type's dataschema", without(dataschema="penstock:document.deleted:1"), "dataschema"),
    ("dataschema of another system", without(dataschema="https://example.com/schema"), "dataschema"),
    ("dataschema version 0", without(dataschema="penstock:document.added:0"), "dataschema"),
    ("dataschema version 2", without(dataschema="penstock:document.added:2"), "dataschema"),
    ("dataschema with a line feed", without(dataschema="penstock:document.added:1\n"), "dataschema"),
    ("time without a zone", without(time="2026-01-01T00:00:00"), "time"),
    ("time in words", without(time="yesterday"), "time"),
    ("time before the calendar", without(time="0001-01-01T00:00:00+14:00"), "time"),
    ("expirytime in words", without(expirytime="soon"), "expirytime"),
    ("negative sequence", without(sequence=-1), "sequence"),
    ("sequence of 2**63", without(sequence=MAX_SEQUENCE + 1), "sequence"),
    ("sequence text of 2**63", without(sequence=str(MAX_SEQUENCE + 1)), "sequence"),
    ("sequence true", without(sequence=True), "sequence"),
    ("sequence 1.5", without(sequence=1.5), "sequence"),
    ("sequence in words", without(sequence="first"), "sequence"),
    ("sequence in other digits", without(sequence="١٢"), "sequence"),
    ("traceparent", without(traceparent="00-1-2-3"), "traceparent"),
    ("traceparent with a line feed", without(traceparent=f"00-{'a' * 32}-{'b' * 16}-01\n"), "traceparent"),
    ("extension a list", without(region=[CANARY]), "region"),
    ("extension a fraction", without(region=1.5), "region"),
    ("extension a big integer", without(region=2**53 + 1), "region"),
    ("extension with NUL", without(region=f"{CANARY}\0"), "region"),
    ("long extension", without(region="x" * 1025), "region"),
    ("unknown data field", with_data(colour=CANARY), "data.colour"),
    ("number as content", with_data(content=7), "data.content"),
    ("NUL in content", with_data(content=f"{CANARY}\0"), "data.content"),
    ("lone surrogate in content", with_data(content=f"{CANARY}\udfff"), "data.content"),
    ("no content, no uri", with_data(content=None), "data"),
    ("content and uri", with_data(uri="https://example.com/a"), "data"),
    ("file as uri", with_data(content=None, uri="file:///etc/passwd"), "data.uri"),
    ("NUL in uri", with_data(content=None, uri=f"https://example.com/{CANARY}\0"), "data.uri"),
    ("media type in words", with_data(media_type=CANARY), "data.media_type"),
    ("NUL in media type", with_data(media_type="text/plain; charset=\0"), "data.media_type"),
    ("upper-case collection", with_data(collection="C"), "data.collection"),
    ("metadata too deep", with_data(metadata=nested(MAX_DEPTH + 1)), "data.metadata"),
    ("metadata bottomless", with_data(metadata=nested(900)), "data.metadata"),
    ("big integer in metadata", with_data(metadata={"n": 2**53 + 1}), "data.metadata"),
    ("NaN in metadata", with_data(metadata={"n": float("nan")}), "data.metadata"),
    ("infinity in metadata", with_data(metadata={"n": float("inf")}), "data.metadata"),
    ("NUL in a metadata key", with_data(metadata={"\0": CANARY}), "data.metadata"),
    ("65 metadata keys", with_data(metadata={str(n): n for n in range(65)}), "data.metadata"),
    ("NaN in data_base64", without("data", data_base64=b64({**DATA, "metadata": {"n": float("nan")}})), "data_base64"),
    ("a key twice in data_base64", without("data", data_base64=base64.b64encode(b'{"a": 1, "a": 2}').decode()), "data_base64"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "field"), [case[1:] for case in REFUSED], ids=[case[0].replace(" ", "_") for case in REFUSED]
)
def test_a_bad_envelope_is_refused_by_the_name_of_its_field(raw: Any, field: str) -> None:
    """The error names the field and shows nothing of what was sent."""
    with pytest.raises(BadInput) as caught:
        parse_event(raw)
    assert field == caught.value.field
    assert CANARY not in str(caught.value.as_dict())


def test_an_unknown_type_is_told_which_types_there_are() -> None:
    """The fix lists what may be published, and nothing that only Penstock says."""
    with pytest.raises(UnknownType) as caught:
        parse_event(without(type="document.eaten"))
    fix = caught.value.fix or ""
    assert "document.added" in fix
    assert "document.indexed" not in fix
    assert "delivery.due" not in fix


def test_a_field_name_cannot_carry_a_document_into_the_error() -> None:
    """A caller's unknown field is cut: its name may be as long as a text."""
    with pytest.raises(BadInput) as caught:
        parse_event(with_data(**{"x" * 100_000: 1}))
    assert len(str(caught.value.as_dict())) < 1000


def test_a_good_event_keeps_what_was_sent() -> None:
    """Attributes are read, times are in UTC, further extensions stay as they came."""
    event = parse_event(
        without(
            time="2026-01-01T01:00:00+01:00",
            sequence="41",
            partitionkey="p",
            region="eu",
            retries=3,
            dataschema="penstock:document.added:1",
            datacontenttype="application/json; charset=utf-8",
        )
    )
    assert ("1", "test", "document.added", DATA) == (event.id, event.source, event.type, event.data)
    assert datetime(2026, 1, 1, tzinfo=UTC) == event.time
    assert 41 == event.sequence
    assert "p" == event.partitionkey
    assert {"region": "eu", "retries": 3} == event.extensions


@pytest.mark.parametrize("sequence", [0, 1, MAX_SEQUENCE, "0", str(MAX_SEQUENCE)])
def test_a_sequence_may_use_its_whole_range(sequence: Any) -> None:
    """0 and 2**63 - 1 are sequences, as integers and as text, which is how CloudEvents' extension has it."""
    assert int(sequence) == parse_event(without(sequence=sequence)).sequence


def test_data_base64_is_the_same_event_as_data() -> None:
    """Both carriers give the same event."""
    plain, carried = parse_event(GOOD), parse_event(without("data", data_base64=b64(DATA)))
    assert plain == carried


def test_depth_up_to_the_limit_is_kept() -> None:
    """The limit itself is allowed."""
    metadata = nested(MAX_DEPTH - 2)
    assert metadata == parse_event(with_data(metadata=metadata)).data["metadata"]

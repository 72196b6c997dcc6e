import json
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import BadInput, NewerThanWorker, UnknownType
from schemas.registry import EVENT_TYPES, QUEUES, Direction, check_data, read_data, types_of

GOLDEN = Path(__file__).parent / "golden"
EVERY_VERSION = [(one.name, major) for one in EVENT_TYPES.values() for major in range(1, one.major + 1)]
INCOMING = [one.name for one in types_of(Direction.IN)]


def golden(name: str, major: int) -> dict[str, Any]:
    """The kept example of one version: never edited, because such events lie in somebody's ledger."""
    found: dict[str, Any] = json.loads((GOLDEN / f"{name}.{major}.json").read_text(encoding="utf-8"))
    return found


def test_every_version_has_its_golden_file_and_no_other_lies_there() -> None:
    """A new type or major version comes with an example."""
    expected = {f"{name}.{major}.json" for name, major in EVERY_VERSION}
    assert expected == {path.name for path in GOLDEN.iterdir()}


@pytest.mark.parametrize(("name", "major"), EVERY_VERSION)
def test_an_old_event_is_read_by_a_worker_as_it_was_meant(name: str, major: int) -> None:
    """What was once accepted stays readable, field by field."""
    data = golden(name, major)
    read = read_data(name, major, data).model_dump(mode="json", exclude_unset=True)
    assert data == read


@pytest.mark.parametrize(("name", "major"), EVERY_VERSION)
def test_a_worker_ignores_fields_that_it_does_not_know(name: str, major: int) -> None:
    """A newer producer of the same major version does not break an older worker."""
    data = golden(name, major)
    assert read_data(name, major, data) == read_data(name, major, {**data, "added_later": {"a": 1}})


@pytest.mark.parametrize(("name", "major"), EVERY_VERSION)
def test_only_incoming_types_pass_the_gate(name: str, major: int) -> None:
    """What Penstock says itself cannot be said by a caller."""
    data = golden(name, major)
    if name in INCOMING:
        assert data == check_data(name, major, data)
        return
    with pytest.raises(UnknownType):
        check_data(name, major, data)


@pytest.mark.parametrize("name", INCOMING)
def test_the_gate_refuses_what_a_worker_ignores(name: str) -> None:
    """An unknown field is a mistake of the caller's, and is named."""
    with pytest.raises(BadInput) as caught:
        check_data(name, 1, {**golden(name, 1), "added_later": 1})
    assert "data.added_later" == caught.value.field


@pytest.mark.parametrize("name", INCOMING)
def test_the_gate_wants_every_field_that_a_worker_needs(name: str) -> None:
    """Taking away a required field is refused by its name."""
    model = EVENT_TYPES[name].model
    required = [field for field, about in model.model_fields.items() if about.is_required()]
    assert required
    for field in required:
        data = {key: value for key, value in golden(name, 1).items() if key != field}
        with pytest.raises(BadInput) as caught:
            check_data(name, 1, data)
        assert f"data.{field}" == caught.value.field


@pytest.mark.parametrize("name", list(EVENT_TYPES))
def test_a_newer_version_waits_for_a_newer_worker(name: str) -> None:
    """It is given back uncharged, not buried."""
    with pytest.raises(NewerThanWorker):
        read_data(name, EVENT_TYPES[name].major + 1, {})


def test_a_type_of_the_future_waits_too() -> None:
    """A worker that is older than a type gives it back."""
    with pytest.raises(NewerThanWorker):
        read_data("document.translated", 1, {})


def test_what_work_needs_has_a_queue_and_what_is_said_has_none() -> None:
    """Incoming and internal events are carried by one of the four queues, outgoing ones by deliveries, letters by none."""
    for one in EVENT_TYPES.values():
        assert (one.queue is None) == (one.direction in {Direction.OUT, Direction.KEPT}), one.name
        assert one.queue is None or one.queue in QUEUES
    assert set(QUEUES) == {one.queue for one in EVENT_TYPES.values()} - {None}

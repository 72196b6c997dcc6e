from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from schemas.envelope import ATTRIBUTES, parse_event
from schemas.inbound import BatchExample
from schemas.outbound import Citation, Problem
from schemas.registry import EVENT_TYPES, Direction, EventType, types_of
from schemas.values import Message, Turn

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
SECTIONS = {
    match[1]: match[2]
    for match in re.finditer(r"^### `([a-z_.]+)`\n(.*?)(?=^###? |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
NESTED: dict[str, type[BaseModel]] = {
    "query.received": Turn,
    "example.recorded": Message,
    "training.batch_ready": BatchExample,
    "query.answered": Citation,
}
WORD = re.compile(r"`([a-z_0-9]+)`")


def fields_of(known: EventType) -> set[str]:
    """The fields of an event's data, and of the shape inside that its section describes."""
    nested = NESTED.get(known.name)
    return set(known.model.model_fields) | (set(nested.model_fields) if nested else set())


def test_every_type_has_a_section_and_no_other() -> None:
    """Types that may be published and types that go out; what Penstock says to itself is nobody's business."""
    said = {one.name for way in (Direction.IN, Direction.OUT) for one in types_of(way)}
    assert said == set(SECTIONS)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_every_field_is_described_and_none_is_invented(name: str) -> None:
    """A section names each field of its event, and names nothing as a field that is none."""
    known = EVENT_TYPES[name]
    prose = re.sub(r"```.*?```", "", SECTIONS[name], flags=re.DOTALL)
    named = set(WORD.findall(prose))
    if name == "query.received":  # the turn's shape is written as JSON
        named |= set(re.findall(r'"([a-z_]+)"', prose))
    assert set() == fields_of(known) - named
    table = set(re.findall(r"^\| `([a-z_0-9]+)`", prose, re.MULTILINE))
    if known.direction is Direction.IN:
        assert table == set(known.model.model_fields)
    else:
        states = {"abstained", "null"}
        assert set() == named - fields_of(known) - states - set(Problem.model_fields)


@pytest.mark.parametrize("known", types_of(Direction.IN), ids=lambda known: known.name)
def test_every_example_is_accepted_by_the_gate(known: EventType) -> None:
    """What is shown can be sent as it is."""
    [example] = re.findall(r"```json\n(.*?)```", SECTIONS[known.name], re.DOTALL)
    event = parse_event(json.loads(example))
    assert event.type == known.name


def test_every_attribute_of_the_envelope_is_described() -> None:
    """The context attributes and extensions that the gate reads."""
    part = PAGE[PAGE.index("## The envelope") : PAGE.index("## What can be refused")]
    assert set() == ATTRIBUTES - set(WORD.findall(part))


def test_the_counts_in_the_first_paragraph_are_true() -> None:
    """Six types in, eighteen out."""
    words: dict[int, str] = {6: "six", 18: "eighteen"}
    incoming: Any = words.get(len(types_of(Direction.IN)))
    outgoing: Any = words.get(len(types_of(Direction.OUT)))
    assert f"events of {incoming} types; Penstock answers with events of {outgoing} types" in PAGE

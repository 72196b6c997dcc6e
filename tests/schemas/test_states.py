import re

import pytest

from infra.migrate import load_migrations
from schemas.states import (
    TRANSITIONS,
    AnswerState,
    DeliveryState,
    DocumentState,
    EndpointState,
    EventState,
    ExampleState,
    RunState,
    State,
    allowed,
    is_final,
    sources,
)

TABLES: dict[type[State], str] = {
    EventState: "events",
    DocumentState: "documents",
    AnswerState: "answers",
    ExampleState: "examples",
    RunState: "training_runs",
    DeliveryState: "deliveries",
    EndpointState: "webhook_endpoints",
}
ALL = [state for machine in TRANSITIONS for state in machine]


def checked_words(table: str) -> set[str]:
    """The words that the CHECK constraint of a table's status column allows, as the migrations leave it."""
    sql = "\n".join(one.sql for one in load_migrations())
    body = re.search(rf"CREATE TABLE {table} \((.*?)\n\)", sql, re.DOTALL)
    assert body is not None, table
    words = re.search(r"CHECK \(status IN \(([^)]*)\)", body[1])
    assert words is not None, table
    return set(re.findall(r"'([a-z_]+)'", words[1]))


@pytest.mark.parametrize("machine", list(TRANSITIONS), ids=lambda machine: machine.__name__)
def test_the_database_allows_the_same_words(machine: type[State]) -> None:
    """The CHECK constraint of the table holds exactly the states of the machine."""
    assert set(machine) == checked_words(TABLES[machine])


def test_every_machine_is_in_the_table_of_transitions() -> None:
    """No machine and no state is forgotten."""
    assert set(State.__subclasses__()) == set(TRANSITIONS) == set(TABLES)
    assert all(set(machine) == set(TRANSITIONS[machine]) for machine in TRANSITIONS)


@pytest.mark.parametrize("state", ALL, ids=lambda state: f"{type(state).__name__}.{state}")
def test_every_state_is_said_in_one_sentence(state: State) -> None:
    """The owner of a thing reads it, so it begins with a capital and ends with a full stop."""
    assert re.fullmatch(r"[A-Z][^.]*\.", state.sentence)


@pytest.mark.parametrize("machine", list(TRANSITIONS), ids=lambda machine: machine.__name__)
def test_every_state_can_be_reached_and_left(machine: type[State]) -> None:
    """From the first state each other one is reachable, and from each the end is."""
    first = next(iter(machine))
    seen, waiting = {first}, [first]
    while waiting:
        for after in TRANSITIONS[machine][waiting.pop()] - seen:
            seen.add(after)
            waiting.append(after)
    assert set(machine) == seen
    assert any(is_final(state) for state in machine) == (machine is not EndpointState)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (EventState.DONE, EventState.ACCEPTED),
        (EventState.DONE, EventState.RUNNING),
        (EventState.ACCEPTED, EventState.DONE),
        (DocumentState.SUPERSEDED, DocumentState.INDEXED),
        (AnswerState.ANSWERED, AnswerState.STREAMING),
        (ExampleState.USED, ExampleState.FREE),
        (ExampleState.PENDING, ExampleState.RESERVED),
        (RunState.RUNNING, RunState.SUBMITTED),
        (RunState.COLLECTING, RunState.SUBMITTED),
        (RunState.PROMOTED, RunState.REJECTED),
        (DeliveryState.DELIVERED, DeliveryState.DEAD),
        (EndpointState.DISABLED, EndpointState.THROTTLED),
        (EventState.DEAD, DeliveryState.PENDING),
    ],
)
def test_what_must_not_happen_is_not_allowed(before: State, after: State) -> None:
    """Nothing ended comes back by itself, no step is skipped, and machines do not mix."""
    assert not allowed(before, after)


def test_sources_are_the_inverse_of_the_table() -> None:
    """What an UPDATE names in its WHERE clause is what the table allows."""
    for machine in TRANSITIONS:
        for after in machine:
            assert sources(after) == sorted(before for before in machine if allowed(before, after))


def test_a_dead_event_comes_back_by_replay_only_as_accepted() -> None:
    """Replay starts an event's life again from its beginning."""
    assert frozenset({EventState.ACCEPTED}) == TRANSITIONS[EventState][EventState.DEAD]

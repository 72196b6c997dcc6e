from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from schemas.values import Message
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import example
from workers.train.admission import screened
from workers.train.examples import check_example
from workers.train.intake import Entry
from workers.train.nearness import Neighbour, Place, find_place, project

HOURS = "What are the opening hours of the lock?"
KNOWN = UUID(int=7)


def known(
    question: str, answer: str, split: str = "train", similarity: float = 0.99, *, counts: bool = True
) -> Neighbour:
    """An example that the dataset has."""
    return Neighbour(KNOWN, split, similarity, example(question, answer)["messages"], counts)


@pytest.mark.parametrize(
    ("question", "answer", "neighbours", "expected"),
    [
        (HOURS, "From seven to nine.", [], Place("holdout")),
        (HOURS, "From seven to nine.", [known(HOURS + "!", "from seven to nine")], Place("train", KNOWN)),
        (HOURS, "From seven to nine.", [known(HOURS, "It is closed.")], Place("train")),
        (HOURS, "From seven to nine.", [known(HOURS, "x", similarity=0.96)], Place("holdout")),
        ("Where is gate 4?", "By the weir.", [known("Where is gate 5?", "By the weir.")], Place("holdout")),
        ("The fee?", "It is 12 crowns.", [known("The fee ?", "It is 14 crowns.")], Place("train")),
        (HOURS, "seven", [known(HOURS, "seven", counts=False)], Place("train")),
        (
            HOURS,
            "seven",
            [known(HOURS, "eight", "holdout"), known(HOURS, "nine", "train", 0.98)],
            Place("holdout", straddles=True),
        ),
    ],
)
def test_an_example_belongs_where_its_neighbours_are(
    question: str, answer: str, neighbours: list[Neighbour], expected: Place
) -> None:
    """Same question and same answer: left out. Same question, other answer: same split. Other numbers: another thing."""
    assert expected == find_place(example(question, answer)["messages"], "holdout", neighbours, 0.97)


@pytest.mark.parametrize("width", [64, 256, 1536])
def test_vectors_of_any_width_keep_their_cosines(width: int) -> None:
    """One stored width serves every model: what was near stays near, to within a hundredth."""
    random = np.random.default_rng(1)
    base = random.normal(size=(200, width))
    other = base + 0.2 * random.normal(size=(200, width))
    unit = [(one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in (base, other)]
    before = np.sum(unit[0] * unit[1], axis=1)
    made = [project(one) for one in unit]
    after = np.sum(made[0] * made[1], axis=1)
    assert (200, 256) == made[0].shape
    assert np.abs(np.linalg.norm(made[0], axis=1) - 1).max() < 1e-3
    assert np.abs(before - after).max() < 0.02


async def test_near_duplicates_are_left_out_and_near_prompts_share_a_split(wheel: Wheel) -> None:
    """Forty questions, each again in nearly the same words: with the same answer it is known, with another it goes along."""
    await wheel.dataset(threshold=1000, near_duplicate=0.85)
    topics = [f"the {a} of the {b}" for a in ("depth", "length", "keeper", "price") for b in TOPICS]
    await wheel.record(
        [example(f"What is {topic}?", f"The answer about {topic} is known.") for topic in topics]
    )
    assert {"free": 40} == await wheel.statuses()
    await wheel.record(
        [example(f"What is {topic}, hm?", f"The answer about {topic} is known") for topic in topics]
    )
    assert {"free": 40} == await wheel.statuses()
    await wheel.record(
        [example(f"What is {topic}, hm?", f"Nobody has told us of {topic}.") for topic in topics]
    )
    rows = await wheel.drive.rows(
        "SELECT messages->0->>'content' AS asked, split, status FROM examples WHERE tenant_id = $1",
        wheel.tenant,
    )
    assert 80 == len(rows)
    splits = {row["asked"]: row["split"] for row in rows if row["status"] == "free"}
    straddling = [
        topic
        for topic in topics
        if splits.get(f"What is {topic}, hm?") not in {None, splits[f"What is {topic}?"]}
    ]
    assert [] == straddling
    assert {"train", "holdout"} <= set(splits.values())


TOPICS = ("lock", "weir", "canal", "ferry", "towpath", "basin", "kiosk", "valve", "museum", "harbour")


async def test_a_dataset_may_look_for_no_near_duplicates(wheel: Wheel) -> None:
    """Switched off, nothing is embedded and only exact copies are left out."""
    await wheel.dataset(threshold=1000, near_duplicate=None)
    await wheel.record(
        [example(HOURS, "seven"), example(HOURS + " ", "seven"), example(HOURS + " hm", "seven")]
    )
    assert {"free": 2} == await wheel.statuses()
    assert 0 == await wheel.faults.requests("embeddings")


MAIL = "write to ada.l@harrow-weir.se, card 4111 1111 1111 1111"


@pytest.mark.parametrize(
    ("screening", "status", "text"),
    [
        ("quarantine", "quarantined", MAIL),
        ("redact", "free", "write to [personal.email], card [personal.card]"),
    ],
)
def test_what_is_personal_is_kept_apart_or_taken_out(screening: str, status: str, text: str) -> None:
    """As the dataset says; either way the example names the rules that it broke."""
    entry = screened(entry_of(example("How do I reach you?", MAIL)["messages"]), screening)
    assert (status, ("personal.email", "personal.card")) == (str(entry.status), entry.rules)
    assert text == entry.checked.messages[-1]["content"]
    assert entry.checked == check_example([Message.model_validate(one) for one in entry.checked.messages])


def test_what_cannot_be_taken_out_is_kept_apart() -> None:
    """The arguments of a tool call would break: such an example waits for somebody to look at it."""
    call = {"id": "c", "type": "function", "function": {"name": "mail", "arguments": f'{{"to": "{MAIL}"}}'}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Send it."},
        {"role": "assistant", "tool_calls": [call]},
    ]
    assert "quarantined" == str(screened(entry_of(messages), "redact").status)


def entry_of(messages: list[dict[str, Any]]) -> Entry:
    """An entry as a handler makes it."""
    return Entry(uuid4(), check_example([Message.model_validate(one) for one in messages]))

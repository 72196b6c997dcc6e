"""Which rung pays: template, examples, retrieval or tuning."""

from typing import Any

import pytest

from infra.database import queries
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import lessons
from workers.train.asking import Desk
from workers.train.grading import PRIMARY
from workers.train.ladder import advise, compare, rungs_of
from workers.train.verdict import Graded

SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}


def rung(name: str, score: float, spread: float = 0.0) -> Graded:
    """A rung whose answers have these grades."""
    grades = [{PRIMARY: score + (spread if index % 2 else -spread)} for index in range(40)]
    return Graded(f"{name}-model", name, grades, 0)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([("template", 0.2), ("few-shot", 0.2)], "use template; few-shot does not pay over template"),
        ([("template", 0.2), ("few-shot", 0.6)], "use few-shot; few-shot pays over template"),
        (
            [("template", 0.2), ("few-shot", 0.6), ("tuned", 0.6)],
            "use few-shot; few-shot pays over template: +0.400, between +0.400 and +0.400; tuned does not pay over few-shot",
        ),
        (
            [("template", 0.6), ("few-shot", 0.3), ("tuned", 0.9)],
            "use tuned; few-shot does not pay over template: -0.300, between -0.300 and -0.300; tuned pays over template",
        ),
    ],
)
def test_the_advice_is_the_lowest_rung_that_nothing_beats(
    scores: list[tuple[str, float]], expected: str
) -> None:
    """A higher rung has to beat the best one below it beyond doubt; what it brought is said either way."""
    assert advise([rung(*one) for one in scores], 0.01).startswith(expected)


def test_a_gain_within_doubt_does_not_pay() -> None:
    """A mean that is better by less than its doubt is no reason to pay more."""
    advice = advise([rung("template", 0.5), rung("few-shot", 0.55, spread=0.4)], 0.01)
    assert advice.startswith("use template; few-shot does not pay")


def test_rungs_are_those_that_exist() -> None:
    """No retrieval without a collection, no tuned model where the alias means the base."""
    assert ["template", "few-shot"] == [one.name for one in rungs_of("b", "b", context=False)]
    assert ["template", "few-shot", "retrieval", "tuned"] == [
        one.name for one in rungs_of("b", "t", context=True)
    ]


async def test_the_whole_ladder_on_one_holdout(wheel: Wheel) -> None:
    """Four rungs answer the same held-out questions; each line says what it is worth and what it costs."""
    await wheel.drive.use("ingest")
    data = {"collection": "canal", "document_id": "basin", "content": "The lower basin is four metres deep."}
    await wheel.drive.publish(wheel.tenant, "document.added", data)
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(80))
    story = await wheel.finish()
    assert "promoted" == story.run.status
    resources = wheel.drive.resources
    assert resources.models is not None
    found = await compare(Desk(resources, resources.models, wheel.tenant), "faq", ["canal"], 100)
    assert ["template", "few-shot", "retrieval", "tuned"] == [one["rung"] for one in found.rungs]
    template, few_shot, _, tuned = found.rungs
    assert {story.run.holdout_examples} == {one["examples"] for one in found.rungs}
    assert (0.0, story.run.model) == (template["gain"], tuned["model"])
    assert few_shot["tokens_per_answer"] > template["tokens_per_answer"]
    assert all(one["quality_low"] <= one["quality"] <= one["quality_high"] for one in found.rungs)
    assert tuned["gain_low"] > 0
    assert found.advice.startswith("use ")


async def test_held_out_examples_are_never_shown(wheel: Wheel) -> None:
    """The nearest example to a held-out prompt is itself; the ones that are shown are of the train split."""
    await wheel.dataset(threshold=1000)
    await wheel.record(lessons(40))
    rows = await wheel.drive.rows(
        "SELECT v.near, e.messages FROM example_vectors v JOIN examples e USING (tenant_id, example_id)"
        " WHERE v.tenant_id = $1 AND e.split = 'holdout'",
        wheel.tenant,
    )
    trained = await wheel.drive.rows(
        "SELECT messages FROM examples WHERE tenant_id = $1 AND split = 'train'", wheel.tenant
    )
    assert rows
    async with wheel.drive.resources.database.transaction(wheel.tenant, readonly=True) as connection:
        for row in rows:
            shown = await connection.fetch(
                queries("train").nearest_train, wheel.tenant, "faq", "local-embed-256", row["near"], 3
            )
            assert 3 == len(shown)
            assert [] == [one for one in shown if {"messages": one["messages"]} not in trained]

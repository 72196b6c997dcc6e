from __future__ import annotations

from typing import Any

import pytest

from infra.local.model.faults_client import Faults
from tests.conftest import NewTenant
from tests.workers.answer.desk import HEATING, Desk

WARRANTY = "How long does the warranty of the Aurora 7 last?"


async def test_the_same_question_is_paid_for_once(desk: Desk, faults: Faults) -> None:
    """A repetition gets the same answer and citations without a model, and says whose answer it is."""
    first = await desk.ask(WARRANTY)
    calls = await faults.calls()
    again = await desk.ask(WARRANTY, stream=True)
    assert await faults.calls() == calls
    assert (first["answer"], first["citations"]) == (again["answer"], again["citations"])
    assert first["id"] == again["report"]["same_as"]
    assert 0 == again["usage"]["tokens_out"]
    assert 2 == len(await desk.said("answered"))


async def test_an_update_makes_the_kept_answer_stale(desk: Desk) -> None:
    """After a commit to the collection nobody gets the older answer."""
    assert "five years" in (await desk.ask(WARRANTY))["answer"]
    await desk.put(HEATING.replace("five years", "eight years"), "aurora")
    assert "eight years" in (await desk.ask(WARRANTY))["answer"]


@pytest.mark.parametrize(
    "other",
    [
        {"filter": {"topic": "heating"}},
        {"top_k": 3},
        {"history": [{"role": "user", "content": "About the Aurora 7."}]},
        {"response_schema": {"type": "object", "properties": {"answer": {"type": "string"}}}},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_another_question_is_another_question(desk: Desk, other: dict[str, Any]) -> None:
    """Filter, top_k, history and schema belong to the question."""
    await desk.ask(WARRANTY)
    assert "same_as" not in (await desk.ask(WARRANTY, **other))["report"]


async def test_abstentions_are_not_kept(desk: Desk) -> None:
    """A question that had no answer is searched again."""
    for _ in range(2):
        assert "abstained" == (await desk.ask("Who won the football world cup in 1998?"))["status"]
    assert [] == await desk.drive.rows("SELECT 1 FROM answer_cache WHERE tenant_id = $1", desk.tenant)


async def test_questions_in_flight_share_one_call(desk: Desk, faults: Faults) -> None:
    """Ten at the same moment: one is answered by the model, the others with it."""
    await faults.latency("chat", seconds=0.3)
    for _ in range(10):
        await desk.publish(WARRANTY)
    await desk.drive.settle(desk.tenant)
    assert 1 == await faults.requests("chat")
    said = await desk.said("answered")
    assert 10 == len(said)
    assert 1 == len({one["answer"] for one in said})


async def test_when_the_first_in_flight_fails_the_next_one_asks(desk: Desk, faults: Faults) -> None:
    """A failure is shared with nobody."""
    await faults.add("chat", "no_finish_reason", times=1)
    ids = [await desk.publish(WARRANTY) for _ in range(3)]
    await desk.drive.settle(desk.tenant)
    assert {"answered"} == {(await desk.read(query_id))["status"] for query_id in ids}
    assert 2 == await faults.requests("chat")


async def test_an_answer_is_not_shared_between_tenants(
    desk: Desk, faults: Faults, new_tenant: NewTenant
) -> None:
    """The same question to the same documents of another tenant is asked again."""
    other = Desk(desk.drive, await new_tenant())
    await other.put(HEATING, "aurora")
    await desk.ask(WARRANTY)
    assert "same_as" not in (await other.ask(WARRANTY))["report"]
    assert 2 == await faults.requests("chat")

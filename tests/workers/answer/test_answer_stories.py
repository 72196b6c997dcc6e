from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.answers import read_answer
from infra.local.model.faults_client import Faults
from schemas.errors import NotFound
from tests.conftest import NewTenant
from tests.workers.answer.desk import HEATING, Desk
from tests.workers.answer.scripted import ask_scripted

WARRANTY = "How long does the warranty of the Aurora 7 last?"


async def test_an_answer_cites_the_passage_that_it_rests_on(desk: Desk) -> None:
    """The quote stands word for word in the chunk that it cites, and webhooks hear the same as a reader."""
    answer = await desk.ask(WARRANTY)
    assert answer["status"] == "answered", answer
    assert "five years" in answer["answer"]
    [citation] = answer["citations"]
    assert citation["document_id"] == "aurora"
    [row] = await desk.drive.rows(
        "SELECT text FROM chunks WHERE chunk_id = $1::text::uuid", citation["chunk_id"]
    )
    assert citation["quote"] in row["text"]
    [said] = await desk.said("answered")
    assert (answer["answer"], answer["citations"]) == (said["answer"], said["citations"])
    assert answer["usage"]["tokens_out"] > 0
    assert {"queue", "retrieve", "model", "total"} <= answer["timings_ms"].keys()


async def test_nothing_relevant_means_no_answer_and_no_paid_call(desk: Desk, faults: Faults) -> None:
    """The evidence gate abstains before the chat model is asked."""
    answer = await desk.ask("Who won the football world cup in 1998?")
    assert ("abstained", None) == (answer["status"], answer["answer"])
    assert await faults.requests("chat") == 0
    assert ["abstained"] == [said["status"] for said in await desk.said("answered")]


async def test_a_collection_may_ask_for_more_evidence(desk: Desk, faults: Faults) -> None:
    """The floor of relevance is the collection's own."""
    await desk.configure(min_similarity=0.99, min_coverage=1.1)
    assert "abstained" == (await desk.ask(WARRANTY))["status"]
    assert await faults.requests("chat") == 0


async def test_a_model_that_does_not_know_abstains(desk: Desk, faults: Faults) -> None:
    """Passages that pass the gate but hold no answer lead to an abstention by the model."""
    await desk.configure(min_similarity=0.05)
    answer = await desk.ask("Which refrigerant does the heat pump use?")
    assert ("abstained", None, []) == (answer["status"], answer["answer"], answer["citations"])
    assert await faults.requests("chat") == 1


async def test_a_follow_up_is_understood_with_its_history(desk: Desk) -> None:
    """A question that says little alone is asked together with what came before."""
    history = [
        {"role": "user", "content": "How long does the warranty of the Aurora 7 last?"},
        {"role": "assistant", "content": "Five years."},
    ]
    answer = await desk.ask("And from which day?", history=history)
    assert ("answered", "And from which day?") == (answer["status"], answer["question"])
    assert "Aurora 7" in answer["standalone"]
    assert "day of delivery" in answer["answer"]


async def test_a_filter_narrows_what_is_answered_from(desk: Desk) -> None:
    """Evidence comes only from documents that pass."""
    assert "abstained" == (await desk.ask(WARRANTY, filter={"topic": "travel"}))["status"]
    answer = await desk.ask(WARRANTY, filter={"year": {"$lt": 2025}})
    assert ["aurora"] == [citation["document_id"] for citation in answer["citations"]]


async def test_answers_follow_the_documents(desk: Desk) -> None:
    """A replaced document changes the answer, a deleted one takes it away."""
    assert "five years" in (await desk.ask(WARRANTY))["answer"]
    await desk.put(HEATING.replace("five years", "nine years"), "aurora")
    assert "nine years" in (await desk.ask(WARRANTY))["answer"]
    await desk.put(None, "aurora")
    assert "abstained" == (await desk.ask(WARRANTY))["status"]


async def test_what_stands_beside_a_hit_is_shown_with_it(desk: Desk) -> None:
    """A chunk's neighbours go into the prompt, and a citation names the chunk in which its quote stands."""
    pages = [f"# Page {n}\n\n" + f"Pipe {n} of the plant carries water to basin {n}. " * 12 for n in range(5)]
    pages[2] += "\n\nThe red lever of the bypass is called Wotan.\n"
    pages[3] = "# Page 3\n\nIts spare key hangs in room 411. " + "Nothing else is kept there. " * 25
    await desk.put("\n\n".join(pages), "plant")
    answer, asked = await ask_scripted(
        desk, "Which red lever is called Wotan?", "Its spare key hangs in room 411. [1]", top_k=1
    )
    assert "room 411" in asked[0]["messages"][-1]["content"]
    [citation] = answer["citations"]
    [row] = await desk.drive.rows(
        "SELECT text FROM chunks WHERE chunk_id = $1::text::uuid", citation["chunk_id"]
    )
    assert "room 411" in citation["quote"]
    assert citation["quote"] in row["text"]
    assert "Wotan" not in row["text"]


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        ({"collections": ["docs", "nope"]}, "not_found", "collections"),
        ({"filter": {"a": {"$like": "b"}}}, "bad_input", "filter.a.$like"),
        ({"template": "nope"}, "not_found", "template"),
        ({"response_schema": {"type": "string", "pattern": "a+"}}, "bad_input", "data.response_schema"),
    ],
)
async def test_a_question_that_cannot_be_answered_fails_with_its_reason(
    desk: Desk, faults: Faults, data: dict[str, Any], code: str, field: str
) -> None:
    """The event is dead, the answer failed, the out event says why, and nothing was paid."""
    await faults.reset_calls()
    answer = await desk.ask(WARRANTY, **data)
    assert ("failed", code, field) == (answer["status"], answer["error"]["code"], answer["error"]["field"])
    [said] = await desk.said("failed")
    assert said["error"] == answer["error"]
    assert await faults.calls() == {}


async def test_nobody_pays_for_an_answer_that_nobody_waits_for(desk: Desk, faults: Faults) -> None:
    """A question past its expirytime is not embedded."""
    await faults.reset_calls()
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    answer = await desk.ask(WARRANTY, {"expirytime": past})
    assert ("failed", "expired") == (answer["status"], answer["error"]["code"])
    assert await faults.calls() == {}
    assert ["expired"] == [said["error"]["code"] for said in await desk.said("failed")]


async def test_a_question_that_expires_stops_its_model_call(desk: Desk, faults: Faults) -> None:
    """A slow model is not waited for longer than anybody waits for it."""
    await faults.add("chat", "hang")
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    answer = await desk.ask(WARRANTY, {"expirytime": soon})
    assert ("failed", "expired") == (answer["status"], answer["error"]["code"])


@pytest.mark.parametrize("kind", ["no_finish_reason", "cut"])
async def test_half_an_answer_is_no_answer(desk: Desk, faults: Faults, kind: str) -> None:
    """A stream without its end is tried again; the answer is written and announced once."""
    await faults.add("chat", kind, times=1)
    query_id = await desk.publish(WARRANTY)
    await desk.drive.step(desk.tenant)
    assert ("retrying", 1) == await desk.standing(query_id)
    await desk.drive.settle(desk.tenant)
    assert ("done", 2) == await desk.standing(query_id)
    assert "answered" == (await desk.read(query_id))["status"]
    assert 1 == len(await desk.said("answered"))


@pytest.mark.parametrize("kind", ["429", "503"])
async def test_a_model_that_asks_to_wait_costs_no_attempt(desk: Desk, faults: Faults, kind: str) -> None:
    """A 429 or an outage brings the question back later, uncharged."""
    await faults.add("chat", kind, times=2, retry_after=0.01)
    query_id = await desk.publish(WARRANTY)
    await desk.drive.step(desk.tenant)
    await desk.drive.step(desk.tenant)
    assert ("accepted", 0) == await desk.standing(query_id)
    await desk.drive.settle(desk.tenant)
    assert "answered" == (await desk.read(query_id))["status"]


async def test_a_model_that_never_finishes_ends_in_the_dead_letters(desk: Desk, faults: Faults) -> None:
    """After its attempts the question is dead, and whoever asked hears so once."""
    await faults.add("chat", "no_finish_reason")
    query_id = await desk.publish(WARRANTY)
    await desk.drive.settle(desk.tenant)
    assert "dead" == (await desk.drive.event(query_id))["status"]
    answer = await desk.read(query_id)
    assert ("failed", "call_failed") == (answer["status"], answer["error"]["code"])
    assert 1 == len(await desk.said("failed"))


async def test_a_dead_question_can_be_replayed(desk: Desk, faults: Faults) -> None:
    """After a replay the failed answer becomes an answered one."""
    await faults.add("chat", "no_finish_reason")
    query_id = await desk.publish(WARRANTY)
    await desk.drive.settle(desk.tenant)
    await faults.clear()
    async with desk.drive.owner.connection() as connection:
        await connection.execute(
            "UPDATE events SET status = 'accepted', finished_at = NULL, dead_at = NULL, attempts = 0"
            " WHERE event_id = $1",
            query_id,
        )
    await desk.drive.settle(desk.tenant)
    answer = await desk.read(query_id)
    assert ("answered", None) == (answer["status"], answer["error"])


async def test_one_tenant_cannot_read_anothers_answer(desk: Desk, new_tenant: NewTenant) -> None:
    """Neither the answer nor whether it exists."""
    query_id = await desk.publish(WARRANTY)
    await desk.drive.settle(desk.tenant)
    with pytest.raises(NotFound):
        await read_answer(desk.drive.resources.database, await new_tenant(), query_id)

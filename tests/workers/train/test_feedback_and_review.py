from typing import Any
from uuid import UUID, uuid4

import pytest

from infra.aliases import Aliases
from infra.model_aliases import (
    alias_history,
    list_aliases,
    promote_run,
    rollback_alias,
)
from infra.training_runs import cancel_run, export_run
from infra.training_store import (
    get_dataset,
    list_examples,
    read_settings,
    review,
    set_dataset,
)
from schemas.errors import BadInput, Conflict, NotFound
from tests.conftest import NewTenant
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import lessons

SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}


async def answered(
    wheel: Wheel,
    status: str = "answered",
    answer: str | None = "An old answer.",
    standalone: str | None = None,
) -> UUID:
    """A question that was answered."""
    query_id = uuid4()
    async with wheel.drive.owner.connection() as connection:
        await connection.execute(
            "INSERT INTO answers (tenant_id, query_id, status, question, collections, answer, standalone)"
            " VALUES ($1, $2, $3, 'How deep is it?', '{c}', $4, $5)",
            wheel.tenant,
            query_id,
            status,
            answer,
            standalone,
        )
    return query_id


async def feedback(wheel: Wheel, **data: Any) -> dict[str, Any]:
    """Publish feedback and take it in; its row of the ledger."""
    event = await wheel.drive.publish(wheel.tenant, "feedback.received", data)
    await wheel.drive.step(wheel.tenant)
    return await wheel.drive.event(event)


async def test_a_corrected_answer_waits_for_approval(wheel: Wheel) -> None:
    """It becomes a pending example of the question with the corrected text, and counts once a person approved it."""
    await feedback(wheel, query_id=str(await answered(wheel)), corrected="Four metres.")
    [example] = await list_examples(wheel.gateway, wheel.tenant, "chat", status="pending")
    assert [
        {"role": "user", "content": "How deep is it?"},
        {"role": "assistant", "content": "Four metres."},
    ] == example["messages"]
    changed, _ = await review(
        wheel.gateway, wheel.tenant, "chat", [example["example_id"]], "approve", actor="ada"
    )
    assert [example["example_id"]] == changed
    assert {"free": 1} == await wheel.statuses()


async def test_a_good_rating_keeps_the_answer_and_a_bad_one_teaches_nothing(wheel: Wheel) -> None:
    """A thumb up is an example of the answer as it was; a thumb down alone says only what not to do."""
    await feedback(wheel, query_id=str(await answered(wheel)), rating=-1)
    assert {} == await wheel.statuses()
    await feedback(wheel, query_id=str(await answered(wheel)), rating=1)
    [example] = await list_examples(wheel.gateway, wheel.tenant, "chat")
    assert "An old answer." == example["messages"][1]["content"]


async def test_a_follow_up_question_is_learned_standing_alone(wheel: Wheel) -> None:
    """Without its history "how deep is it" teaches nothing: the example holds the question that was searched for."""
    query_id = await answered(wheel, standalone="How deep is the lower basin?")
    await feedback(wheel, query_id=str(query_id), rating=1)
    [example] = await list_examples(wheel.gateway, wheel.tenant, "chat")
    assert "How deep is the lower basin?" == example["messages"][0]["content"]


async def test_a_dataset_may_approve_by_itself(wheel: Wheel) -> None:
    """Feedback goes to the dataset of the answer's alias, under that dataset's policy."""
    await wheel.dataset("faq", approval="automatic")
    await feedback(wheel, query_id=str(await answered(wheel)), corrected="Four metres.")
    [example] = await list_examples(wheel.gateway, wheel.tenant, "faq")
    assert "free" == example["status"]


@pytest.mark.parametrize("query_id", ["8b3cbc54-9788-4231-bdae-c5c9dcb34152", "no such id"])
async def test_feedback_to_an_unknown_question_is_a_dead_letter(wheel: Wheel, query_id: str) -> None:
    """With the reason, and without an example."""
    row = await feedback(wheel, query_id=query_id, rating=1)
    assert ("dead", "not_found") == (row["status"], row["error"]["code"])


async def test_feedback_before_the_answer_waits(wheel: Wheel) -> None:
    """The question is still being answered: the feedback is tried again."""
    row = await feedback(wheel, query_id=str(await answered(wheel, "streaming", None)), corrected="x")
    assert ("retrying", "call_failed") == (row["status"], row["error"]["code"])


async def test_feedback_of_another_tenant_finds_nothing(wheel: Wheel, new_tenant: NewTenant) -> None:
    """Another tenant's question does not exist (P6)."""
    query_id = await answered(wheel)
    event = await wheel.drive.publish(
        other := await new_tenant(), "feedback.received", {"query_id": str(query_id), "rating": 1}
    )
    await wheel.drive.step(other)
    assert "dead" == (await wheel.drive.event(event))["status"]


async def test_an_approval_can_fill_the_threshold(wheel: Wheel) -> None:
    """Approving fires the same trigger as recording does, and returns what has to be pushed."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(23))
    query_id = await answered(wheel)
    await feedback(wheel, query_id=str(query_id), corrected="Four metres.")
    [example] = await list_examples(wheel.gateway, wheel.tenant, "faq", status="pending")
    _, pushables = await review(
        wheel.gateway, wheel.tenant, "faq", [example["example_id"]], "approve", actor="ada"
    )
    assert ["training.batch_ready"] == [one.type for one in pushables]


async def test_reviewing_moves_only_what_the_states_allow(wheel: Wheel) -> None:
    """A withdrawn example stays withdrawn; a reserved one is not freed by hand."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(10))
    ids = [one["example_id"] for one in await list_examples(wheel.gateway, wheel.tenant, "faq")]
    await review(wheel.gateway, wheel.tenant, "faq", ids[:3], "withdraw", actor="ada")
    changed, _ = await review(wheel.gateway, wheel.tenant, "faq", ids, "approve", actor="ada")
    assert [] == changed
    assert {"withdrawn": 3, "free": 7} == await wheel.statuses()


async def test_promotion_by_hand_and_rollback_keep_the_history(wheel: Wheel) -> None:
    """A person may overrule the evaluation, and go back step by step; every change is kept and told."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    run = (await wheel.finish()).run
    model, _ = await rollback_alias(wheel.gateway, wheel.tenant, "chat", reason="looks odd", actor="ada")
    assert "local-chat" == model
    with pytest.raises(Conflict):
        await rollback_alias(wheel.gateway, wheel.tenant, "chat", reason="again", actor="ada")
    await promote_run(wheel.gateway, wheel.tenant, run.run_id, default="local-chat", actor="ada")
    aliases = Aliases(wheel.gateway, "local-chat")
    assert run.model == (await aliases.resolve(wheel.tenant, "chat")).model
    assert "local-chat" == (await aliases.resolve(wheel.tenant, "other")).model
    history = await alias_history(wheel.gateway, wheel.tenant, "chat")
    assert [(run.model, "ada"), ("local-chat", "ada"), (run.model, "evaluation")] == [
        (line["model"], line["actor"]) for line in history
    ]
    assert 2 == len(await wheel.said("model.promoted"))
    [back] = await wheel.said("model.rolled_back")
    assert ("local-chat", run.model, "looks odd") == (back["model"], back["previous"], back["reason"])
    with pytest.raises(Conflict):
        await promote_run(wheel.gateway, wheel.tenant, run.run_id, default="local-chat", actor="ada")


async def test_an_export_is_byte_for_byte_what_was_trained_on(wheel: Wheel) -> None:
    """Repeated, it is the same; its hash is the run's."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    run = (await wheel.finish()).run
    lines = [line async for line in export_run(wheel.gateway, wheel.tenant, run.run_id, "train")]
    again = [line async for line in export_run(wheel.gateway, wheel.tenant, run.run_id, "train")]
    assert lines == again
    assert run.train_examples == len(lines)
    uploaded = await wheel.drive.rows(
        "SELECT train_sha256 = sha256($2) AS same FROM training_runs WHERE tenant_id = $1",
        wheel.tenant,
        b"".join(lines),
    )
    assert [{"same": True}] == uploaded


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"threshold": 0}, "threshold"),
        ({"threshold": "100"}, "threshold"),
        ({"approval": "maybe"}, "approval"),
        ({"margin": 0}, "margin"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_bad_settings_name_the_field(body: dict[str, Any], field: str) -> None:
    """What a person mistypes is told, not ignored."""
    with pytest.raises(BadInput) as caught:
        read_settings(body)
    assert field == caught.value.field


async def test_settings_change_what_is_given_and_keep_the_rest(wheel: Wheel) -> None:
    """Null lifts a maximum age; what is left out stays."""
    await set_dataset(
        wheel.gateway,
        wheel.tenant,
        "faq",
        read_settings({"threshold": 50, "max_age_hours": 24, "key_share": 0.3}),
        base_model="local-chat",
        actor="ada",
    )
    view, _ = await set_dataset(
        wheel.gateway,
        wheel.tenant,
        "faq",
        read_settings({"max_age_hours": None, "alias": "support"}),
        base_model="ignored",
        actor="ada",
    )
    assert (50, None, "support", "local-chat") == (
        view.threshold,
        view.max_age_hours,
        view.alias,
        view.base_model,
    )
    # As they were set, to the last digit.
    assert (0.01, 0.97, 0.3) == (view.margin, view.near_duplicate, view.key_share)


async def test_what_does_not_exist_is_not_found(wheel: Wheel) -> None:
    """Also for another tenant's run."""
    with pytest.raises(NotFound):
        await get_dataset(wheel.gateway, wheel.tenant, "none")
    with pytest.raises(NotFound):
        await cancel_run(wheel.gateway, wheel.tenant, uuid4(), actor="ada")
    with pytest.raises(NotFound):
        await rollback_alias(wheel.gateway, wheel.tenant, "none", reason="x", actor="ada")
    assert [] == await list_aliases(wheel.gateway, wheel.tenant)

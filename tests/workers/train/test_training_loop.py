from datetime import UTC, datetime, timedelta
from uuid import UUID

from infra.model_aliases import list_aliases, list_models
from infra.training_runs import RunStory, cancel_run
from infra.training_store import get_dataset
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import ANSWERS, lessons, misled, scrambled
from workers.answer.examples import ExampleShelves


async def test_examples_become_a_promoted_model(wheel: Wheel) -> None:
    """160 examples trigger one run, which trains, is judged on examples it never saw, takes over the alias and tells it all."""
    await wheel.record()
    story = await wheel.finish()
    run = story.run
    assert ("promoted", "threshold", 160) == (run.status, run.reason, run.examples)
    assert {"used": 160} == await wheel.statuses()
    assert len(story.losses) > 10
    assert story.losses[-1][1] < story.losses[0][1]  # type: ignore[operator]
    assert run.trained_tokens is not None
    base, tuned = run.evaluation["table"]  # type: ignore[index]
    assert ("base", "tuned") == (base["role"], tuned["role"])
    assert base["examples"] == tuned["examples"] == run.holdout_examples
    assert tuned["token_f1"] > base["token_f1"] + 0.5
    [alias] = await list_aliases(wheel.gateway, wheel.tenant)
    assert ("chat", run.model, "local-chat") == (alias["alias"], alias["model"], alias["previous"])
    [model] = await list_models(wheel.gateway, wheel.tenant)
    assert (run.model, ["chat"], "promoted") == (model["model"], model["aliases"], model["run_status"])
    await trained_on_its_split_alone(wheel, story)
    await told_in_order(wheel, story)


async def trained_on_its_split_alone(wheel: Wheel, story: RunStory) -> None:
    """The uploaded file held the train split, all of it and nothing else; the files are gone at the end."""
    rows = await wheel.drive.rows(
        "SELECT split, count(*) AS n FROM examples WHERE tenant_id = $1 GROUP BY split", wheel.tenant
    )
    run = story.run
    assert {row["split"]: row["n"] for row in rows} == {
        "train": run.train_examples,
        "validation": run.validation_examples,
        "holdout": run.holdout_examples,
    }
    cleaned = next(line for line in story.history if line["what"] == "cleaned")
    assert cleaned["details"] == {"files_kept": 0}


async def told_in_order(wheel: Wheel, story: RunStory) -> None:
    """Receivers heard of the start, of progress with losses, of the model, of the comparison, and of the promotion."""
    rows = await wheel.drive.rows(
        "SELECT type FROM events WHERE tenant_id = $1 AND queue IS NULL ORDER BY accept_no", wheel.tenant
    )
    kinds = list(dict.fromkeys(row["type"] for row in rows))
    assert kinds == [
        "training.started",
        "training.progressed",
        "training.succeeded",
        "model.evaluated",
        "model.promoted",
    ]
    measured = [one for one in await wheel.said("training.progressed") if one["step"] is not None]
    assert measured[-1]["step"] == measured[-1]["total_steps"]
    assert measured[-1]["train_loss"] == story.losses[-1][1]
    [evaluated] = await wheel.said("model.evaluated")
    assert evaluated["promote"] is True
    assert evaluated["table"] == story.run.evaluation["table"]  # type: ignore[index]


async def test_a_worse_model_is_rejected_and_says_why(wheel: Wheel) -> None:
    """Trained on answers to other questions, a model is no better than its base, and the alias stays."""
    await wheel.dataset("faq")
    await wheel.record(scrambled())
    # The holdout is what people wished for: it tells the truth where the training split lies.
    truth = {one["messages"][0]["content"]: one["messages"] for one in lessons()}
    async with wheel.drive.owner.connection() as connection:
        rows = await connection.fetch(
            "SELECT example_id, messages FROM examples WHERE tenant_id = $1 AND split = 'holdout'",
            wheel.tenant,
        )
        for row in rows:
            await connection.execute(
                "UPDATE examples SET messages = $2 WHERE example_id = $1",
                row["example_id"],
                truth[row["messages"][0]["content"]],
            )
    story = await wheel.finish()
    assert story.run.status == "rejected"
    assert "does not clear the margin" in story.run.evaluation["reason"]  # type: ignore[index]
    assert await list_aliases(wheel.gateway, wheel.tenant) == []
    assert {"used": 160} == await wheel.statuses()
    [rejected] = await wheel.said("model.rejected")
    assert rejected["model"] == story.run.model


async def test_a_run_that_could_not_be_judged_is_refused_before_it_is_paid(wheel: Wheel) -> None:
    """Asked for by hand with too few held-out examples, it fails with what it has and what it needs."""
    await wheel.record(lessons(40))
    await wheel.start(reason="by hand")
    await wheel.drive.settle(wheel.tenant)
    [failed] = await wheel.said("training.failed")
    assert failed["run_id"] is None
    assert failed["error"]["code"] == "too_few_examples"
    assert failed["have"] < failed["need"] == 25
    assert await wheel.faults.requests("jobs.create") == 0
    assert {"free": 40} == await wheel.statuses()


async def test_examples_that_come_with_the_batch_are_recorded_first(wheel: Wheel) -> None:
    """An upstream system hands over its own examples and a base model, and gets a run of them."""
    await wheel.dataset("own", alias="support")
    event = await wheel.start("own", examples=lessons(), base_model="local-chat", reason="nightly")
    story = await wheel.finish()
    assert (event, "promoted", "nightly", "support") == (
        story.run.run_id,
        story.run.status,
        story.run.reason,
        story.run.alias,
    )


async def test_a_second_run_waits_for_the_first(wheel: Wheel) -> None:
    """One run of a dataset at a time; a later one is told to wait, and runs afterwards."""
    await wheel.record()
    first = await wheel.until("running", "validating", "queued")
    second = await wheel.start(reason="again")
    await wheel.drive.step(wheel.tenant)
    assert (await wheel.drive.event(second))["status"] == "accepted"
    story = await wheel.finish()
    assert (second, "again") == (story.run.run_id, story.run.reason)
    # The second comparison is against the model that serves since the first.
    roles = [row["role"] for row in story.run.evaluation["table"]]  # type: ignore[index]
    assert ["base", "serving", "tuned"] == roles
    [model] = [
        one for one in await list_models(wheel.gateway, wheel.tenant) if one["run_id"] == first.run.run_id
    ]
    assert story.run.evaluation["table"][1]["model"] == model["model"]  # type: ignore[index]


async def test_a_refusing_provider_is_a_state_and_frees_the_examples(wheel: Wheel) -> None:
    """403 is not retried: the run is unavailable with the reason, and nothing starts by itself for a day."""
    await wheel.faults.add("jobs.create", "403")
    await wheel.record()
    story = await wheel.finish()
    assert story.run.status == "unavailable"
    assert {"free": 160} == await wheel.statuses()
    [told] = await wheel.said("training.unavailable")
    assert told["error"]["code"] == "refused"
    dataset = await get_dataset(wheel.gateway, wheel.tenant, "faq")
    assert dataset.not_before is not None
    assert dataset.not_before > datetime.now(UTC) + timedelta(hours=23)
    assert await wheel.faults.requests("jobs.create") == 1


async def test_examples_that_cannot_be_trained_on_are_shown_instead(wheel: Wheel) -> None:
    """Where no model is to be had, the answer wing puts the same examples before a question that is like theirs."""
    await wheel.faults.add("jobs.create", "403")
    await wheel.dataset(threshold=24, minimum=10, holdout_minimum=4)
    await wheel.record(lessons(40))
    assert "unavailable" == (await wheel.finish()).run.status
    shelves = ExampleShelves(wheel.drive.resources.database)
    shown = await shelves.nearest(wheel.tenant, "chat", "Kindly tell me the name of the ferry captain", 3)
    assert 3 == len(shown)
    assert ANSWERS["the name of the ferry captain"] == shown[-1].answer
    held = await wheel.drive.rows(
        "SELECT messages FROM examples WHERE tenant_id = $1 AND split <> 'train'", wheel.tenant
    )
    assert not {one.question for one in shown} & {row["messages"][0]["content"] for row in held}


async def test_a_failed_job_gives_its_examples_back(wheel: Wheel) -> None:
    """The provider's reason is passed on, the examples are free, and the failure is counted."""
    await wheel.faults.add("jobs.run", "fail")
    await wheel.dataset(max_failures=1)
    await wheel.record()
    story = await wheel.finish()
    assert story.run.status == "failed"
    assert {"free": 160} == await wheel.statuses()
    [failed] = await wheel.said("training.failed")
    assert failed["run_id"] == str(story.run.run_id)
    assert (await get_dataset(wheel.gateway, wheel.tenant, "faq")).failures == 1


async def test_a_cancelled_run_stops_its_job(wheel: Wheel) -> None:
    """Whoever cancels gets the examples back, and no job goes on at the provider."""
    await wheel.faults.add("jobs.run", "stuck")
    await wheel.record()
    run_id: UUID = (await wheel.until("running")).run.run_id
    await cancel_run(wheel.gateway, wheel.tenant, run_id, actor="test")
    story = await wheel.finish()
    assert story.run.status == "cancelled"
    assert {"free": 160} == await wheel.statuses()
    assert ["cancelled"] == [job.status for job in await wheel.jobs(run_id)]


async def test_a_base_model_about_to_end_is_not_trained_on(wheel: Wheel) -> None:
    """A tuned model would die with it: refused before anything is uploaded."""
    soon = (datetime.now(UTC) + timedelta(days=20)).date().isoformat()
    await wheel.faults.shutdown_date("local-chat", soon)
    try:
        await wheel.record()
        story = await wheel.finish()
    finally:
        await wheel.faults.shutdown_date("local-chat", None)
    assert story.run.status == "failed"
    assert story.run.error["code"] == "base_model_ends"  # type: ignore[index]
    assert await wheel.faults.requests("files.create") == 0


async def test_a_checkpoint_may_win(wheel: Wheel) -> None:
    """Trained for too long on examples of which some are wrong, a model was better before its end: that one is promoted."""
    await wheel.faults.clear("jobs.checkpoints")
    await wheel.dataset(epochs=15)
    await wheel.record(misled())
    story = await wheel.finish()
    run = story.run
    assert "promoted" == run.status, run.evaluation
    base, checkpoint, tuned = run.evaluation["table"]  # type: ignore[index]
    assert ("base", "checkpoint", "tuned") == (base["role"], checkpoint["role"], tuned["role"])
    assert checkpoint["corrected_f1"] > tuned["corrected_f1"] > base["corrected_f1"]
    [alias] = await list_aliases(wheel.gateway, wheel.tenant)
    assert (checkpoint["model"], checkpoint["model"]) == (run.model, alias["model"])
    [job] = await wheel.jobs(run.run_id)
    assert tuned["model"] == job.model

import asyncio
import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from infra.prices import ModelPrice
from infra.trainer import Trainer, training_line
from schemas.states import RunState
from tests.infra.raw_server import Exchange, raw_server
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import example, lessons
from workers.train.ending import Consequence, consequence
from workers.train.monitor import next_look
from workers.train.own_jobs import state_of
from workers.train.prepare import is_dying

SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


async def test_a_run_over_budget_waits_visibly_and_goes_on(wheel: Wheel) -> None:
    """Nothing is uploaded; the event says paused_budget with the sum; with a higher limit the run ends as usual."""
    budget = wheel.drive.resources.budget
    budget.prices.models["local-chat"] = ModelPrice.model_validate({"train": 5.0})
    try:
        await set_limits(wheel, {"budget_day": 0.000001})
        await wheel.dataset(**SMALL)
        await wheel.record(lessons(40))
        story = await wheel.until("preparing")
        await wheel.drive.step(wheel.tenant)
        [row] = await wheel.drive.rows(
            "SELECT status, error, due_at FROM events WHERE tenant_id = $1 AND type = 'training.advance'",
            wheel.tenant,
        )
        assert "paused_budget" == row["status"]
        assert "USD" in row["error"]["message"]
        assert 0 == await wheel.faults.requests("files.create")
        await set_limits(wheel, {"budget_day": None})
        budget._limits.clear()
        story = await wheel.finish()
        assert "promoted" == story.run.status
        assert story.run.trained_tokens is not None
        [usage] = await wheel.drive.rows(
            "SELECT * FROM usage WHERE tenant_id = $1 AND purpose = 'train'", wheel.tenant
        )
        assert (1, story.run.trained_tokens) == (usage["calls"], usage["tokens_in"])
        assert usage["cost_micros"] == story.run.trained_tokens * 5
        assert [] == await wheel.drive.rows(
            "SELECT * FROM budget_reservations WHERE tenant_id = $1", wheel.tenant
        )
    finally:
        del budget.prices.models["local-chat"]


async def set_limits(wheel: Wheel, limits: dict[str, Any]) -> None:
    """What an operator sets."""
    async with wheel.drive.owner.connection() as connection:
        await connection.execute("UPDATE tenants SET limits = $2 WHERE tenant_id = $1", wheel.tenant, limits)


@pytest.mark.parametrize("kind", ["429", "500", "cut", "malformed"])
async def test_answers_that_were_paid_are_kept_through_trouble(wheel: Wheel, kind: str) -> None:
    """Calls of the evaluation that fail are asked again; those that came are not."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    await wheel.until("evaluating")
    await wheel.faults.reset_calls()
    await wheel.faults.add("chat", kind, times=5, after=3)
    story = await wheel.finish()
    assert "promoted" == story.run.status
    # Two models, each example once, the five that failed again, and the call that warms up; none was paid for twice.
    assert story.run.holdout_examples is not None
    wanted = 2 * story.run.holdout_examples
    assert wanted + 5 + 1 == await wheel.faults.requests("chat")


async def test_a_tuned_model_that_cannot_answer_is_rejected(wheel: Wheel) -> None:
    """Its failures count as worthless answers; the base model's answers decide."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    model = (await wheel.until("evaluating")).run.model
    assert model is not None
    async with Trainer.open(wheel.drive.resources.settings) as trainer:
        await trainer._client.models.delete(model)
    story = await wheel.finish()
    assert "rejected" == story.run.status
    tuned = story.run.evaluation["table"][-1]  # type: ignore[index]
    assert tuned["errors"] == tuned["examples"]
    assert "answers failed" in story.run.evaluation["reason"]  # type: ignore[index]


async def test_a_job_that_says_nothing_for_long_has_stalled(wheel: Wheel) -> None:
    """It is cancelled at the provider, and the examples are given back."""
    await wheel.dataset(**SMALL)
    await wheel.faults.add("jobs.run", "stuck")
    await wheel.record(lessons(40))
    run_id = (await wheel.until("running")).run.run_id
    async with wheel.drive.owner.connection() as connection:
        await connection.execute(
            "UPDATE training_runs SET heard_at = now() - interval '7 hours' WHERE run_id = $1", run_id
        )
    story = await wheel.finish()
    assert ("failed", "stalled") == (story.run.status, story.run.error["code"])  # type: ignore[index]
    assert ["cancelled"] == [job.status for job in await wheel.jobs(run_id)]
    assert {"free": 40} == await wheel.statuses()


async def test_an_odd_status_is_waited_through(wheel: Wheel) -> None:
    """A status that nobody has heard of ends nothing."""
    await wheel.dataset(**SMALL)
    await wheel.faults.add("jobs.retrieve", "odd_status", times=3)
    await wheel.record(lessons(40))
    assert "promoted" == (await wheel.finish()).run.status


@pytest.mark.parametrize("endpoint", ["files.create", "jobs.retrieve", "jobs.events", "files.list", "models"])
@pytest.mark.parametrize("kind", ["500", "malformed"])
async def test_an_outage_of_the_trainer_burns_no_attempt(wheel: Wheel, endpoint: str, kind: str) -> None:
    """More failures in a row than an event has attempts: the run goes on where it was (P9)."""
    await wheel.dataset(**SMALL)
    await wheel.faults.add(endpoint, kind, times=12)
    await wheel.record(lessons(40))
    story = await wheel.finish()
    assert "promoted" == story.run.status
    assert [] == await wheel.said("event.dead")
    assert 1 == len(await wheel.jobs(story.run.run_id))


async def test_an_outage_that_outlasts_the_stall_time_ends_the_run(wheel: Wheel) -> None:
    """Patience has an end: the run fails and its examples are free."""
    await wheel.dataset(**SMALL)
    await wheel.faults.add("jobs.retrieve", "500")
    await wheel.record(lessons(40))
    run_id = (await wheel.until("validating", "queued")).run.run_id
    async with wheel.drive.owner.connection() as connection:
        await connection.execute(
            "UPDATE training_runs SET heard_at = now() - interval '7 hours' WHERE run_id = $1", run_id
        )
    await wheel.until("failed")
    await wheel.faults.clear()
    story = await wheel.finish()
    assert ("failed", "provider_away") == (story.run.status, story.run.error["code"])  # type: ignore[index]
    assert {"free": 40} == await wheel.statuses()
    # The clean-up comes after the outage: no paid job goes on unwatched.
    assert {job.status for job in await wheel.jobs(run_id)} <= {"succeeded", "cancelled"}


async def test_a_refused_clean_up_is_a_dead_letter_and_changes_no_outcome(wheel: Wheel) -> None:
    """The model stays promoted; somebody is told that files may be left at the provider."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    await wheel.until("evaluating")
    await wheel.faults.add("files.list", "403")
    story = await wheel.finish()
    assert "promoted" == story.run.status
    assert [] == await wheel.said("training.failed") + await wheel.said("training.unavailable")
    [dead] = await wheel.said("event.dead")
    assert ("training.advance", "refused") == (dead["type"], dead["error"]["code"])


async def test_a_poison_example_is_a_dead_letter_and_hurts_nobody(wheel: Wheel) -> None:
    """An example that no trainer takes is refused with the field; those beside it are recorded (P7)."""
    bad = {"messages": [{"role": "user", "content": "q"}, {"role": "user", "content": "q"}]}
    await wheel.record([*lessons(5), bad, *lessons(10)[5:]])
    assert {"free": 10} == await wheel.statuses()
    [dead] = await wheel.said("event.dead")
    assert ("bad_input", "data.messages.1.role") == (dead["error"]["code"], dead["error"]["field"])


async def test_examples_by_uri_are_held_against_their_hash(wheel: Wheel) -> None:
    """The file of an upstream system is fetched through the guarded door; another hash is refused."""
    body = b"".join(training_line(one["messages"]) for one in lessons(40))

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, body, content_type="application/jsonl")

    async with raw_server(script) as server:
        uri = f"http://127.0.0.1:{server.port}/examples.jsonl"
        await wheel.dataset(**SMALL)
        wrong = await wheel.start(uri=uri, sha256="0" * 64)
        right = await wheel.start(uri=uri, sha256=hashlib.sha256(body).hexdigest())
        story = await wheel.finish()
    assert ("dead", "data.sha256") == (
        (row := await wheel.drive.event(wrong))["status"],
        row["error"]["field"],
    )
    assert (right, "promoted", 40) == (story.run.run_id, story.run.status, story.run.examples)


async def test_no_text_of_an_example_is_logged(wheel: Wheel, capsys: pytest.CaptureFixture[str]) -> None:
    """A word that occurs in every example and in no log line (P8)."""
    canary = "zanzibar-canary"
    examples = [
        {"messages": [{"role": "system", "content": f"You are {canary}."}, *one["messages"]]}
        for one in (
            example(each["messages"][0]["content"], f"{each['messages'][1]['content']} {canary}")
            for each in lessons(40)
        )
    ]
    bad = {"messages": [{"role": "user", "content": canary}, {"role": "tool", "content": canary}]}
    await wheel.dataset(**SMALL)
    await wheel.faults.add("chat", "500", times=2)
    await wheel.record([*examples, bad])
    await wheel.finish()
    await asyncio.sleep(0)
    said = capsys.readouterr()
    assert "train.run_ended" in said.out + said.err
    assert canary not in said.out + said.err


@pytest.mark.parametrize(
    ("state", "failures", "cooldown", "expected"),
    [
        (RunState.PROMOTED, 2, 0.0, Consequence(0, None)),
        (RunState.REJECTED, 2, 60.0, Consequence(0, NOW + timedelta(seconds=60))),
        (RunState.FAILED, 0, 0.0, Consequence(1, NOW + timedelta(minutes=10))),
        (RunState.FAILED, 3, 0.0, Consequence(4, NOW + timedelta(minutes=80))),
        (RunState.FAILED, 50, 0.0, Consequence(51, NOW + timedelta(days=1))),
        (RunState.FAILED, 0, 7200.0, Consequence(1, NOW + timedelta(hours=2))),
        (RunState.UNAVAILABLE, 0, 0.0, Consequence(1, NOW + timedelta(days=1))),
        (RunState.CANCELLED, 1, 0.0, Consequence(1, NOW + timedelta(days=1))),
    ],
)
def test_what_follows_from_an_end(
    state: RunState, failures: int, cooldown: float, expected: Consequence
) -> None:
    """A model resets the count; a failure pauses longer each time; a refusal or a cancellation for a day."""
    assert expected == consequence(state, failures, cooldown, NOW)


@pytest.mark.parametrize(
    ("left", "jitter", "expected"),
    [
        (None, 0.0, 30.0),
        (None, 1.0, 36.0),
        (100.0, 0.0, 10.0),
        (5.0, 0.0, 1.0),
        (-50.0, 0.0, 1.0),
        (9999.0, -1.0, 24.0),
    ],
)
def test_looks_follow_the_estimate(left: float | None, jitter: float, expected: float) -> None:
    """A tenth of what is left, between a second and the poll interval, spread by the jitter."""
    finish = None if left is None else NOW + timedelta(seconds=left)
    assert pytest.approx(expected) == next_look(30.0, finish, NOW, jitter)


@pytest.mark.parametrize(
    ("told", "now", "expected"),
    [
        ("queued", RunState.VALIDATING, RunState.QUEUED),
        ("running", RunState.VALIDATING, RunState.RUNNING),
        ("validating_files", RunState.RUNNING, RunState.RUNNING),
        ("paused", RunState.QUEUED, RunState.QUEUED),
        ("succeeded", RunState.VALIDATING, RunState.RUNNING),
    ],
)
def test_a_run_never_goes_back(told: str, now: RunState, expected: RunState) -> None:
    """A status that lags behind, or that is unknown, changes nothing."""
    assert expected == state_of(told, now)


@pytest.mark.parametrize(
    ("shutdown", "dying"),
    [(None, False), (date(2026, 12, 22), True), (date(2026, 12, 24), False), (date(2020, 1, 1), True)],
)
def test_a_base_model_dies_within_thirty_days(shutdown: date | None, dying: bool) -> None:
    """Nobody pays for a model that ends with its base in a month."""
    assert dying is is_dying(shutdown, NOW.date())

"""What people and money ask of a run while it is under way."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from infra.database import queries
from infra.model_aliases import list_aliases
from infra.prices import ModelPrice
from infra.trainer import Trainer, training_line
from infra.training_runs import cancel_run, export_run, pause_run, resume_run
from infra.training_store import review
from schemas.envelope import parse_event
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import lessons
from workers.handling import Later
from workers.train.evaluate import evaluate
from workers.train.money import find_excess
from workers.train.runs import Wing, read_run

SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
async def priced(wheel: Wheel) -> Any:
    """Training costs five dollars for a million tokens."""
    models = wheel.drive.resources.budget.prices.models
    models["local-chat"] = ModelPrice.model_validate({"train": 5.0})
    yield wheel
    del models["local-chat"]


async def reservations(wheel: Wheel) -> list[dict[str, Any]]:
    """What is promised."""
    return await wheel.drive.rows(
        "SELECT reservation_id, purpose, cost_micros FROM budget_reservations WHERE tenant_id = $1",
        wheel.tenant,
    )


async def test_money_is_promised_in_the_triggers_transaction(priced: Wheel) -> None:
    """A run that exists has its money, before it has taken a single step; the promise is for what the file will hold."""
    wheel = priced
    async with wheel.drive.owner.connection() as connection:
        limits = {"budget_day": 1.0}
        await connection.execute("UPDATE tenants SET limits = $2 WHERE tenant_id = $1", wheel.tenant, limits)
    await wheel.dataset(**SMALL, epochs=4)
    await wheel.record(lessons(40))
    story = await wheel.until("collecting")
    [promised] = await reservations(wheel)
    assert (story.run.run_id, "train") == (promised["reservation_id"], promised["purpose"])
    assert promised["cost_micros"] == story.run.cost_micros > 0
    story = await wheel.until("submitted")
    assert story.run.train_tokens is not None
    assert promised["cost_micros"] == story.run.train_tokens * 4 * 5
    story = await wheel.finish()
    assert story.run.trained_tokens is not None
    assert story.run.trained_tokens * 5 == story.run.cost_micros
    assert [] == await reservations(wheel)


async def test_a_datasets_own_budget_holds_its_runs(priced: Wheel) -> None:
    """Above the month's sum a run waits, visibly and unpaid; with a higher one it goes on."""
    wheel = priced
    await wheel.dataset(**SMALL, budget_month=0.000001)
    await wheel.record(lessons(40))
    story = await wheel.until("preparing")
    assert "waits_for_budget" in [line["what"] for line in story.history]
    await wheel.drive.step(wheel.tenant)
    [row] = await wheel.drive.rows(
        "SELECT status, error FROM events WHERE tenant_id = $1 AND type = 'training.advance'", wheel.tenant
    )
    assert ("paused_budget", "budget_month") == (row["status"], row["error"]["field"])
    assert 0 == await wheel.faults.requests("files.create")
    await wheel.dataset(budget_month=1.0)
    assert "promoted" == (await wheel.finish()).run.status


@pytest.mark.parametrize(
    ("limit", "spent", "cost", "fits"),
    [
        (None, 10**9, 10**9, True),
        (1.0, 400_000, 600_000, True),
        (1.0, 400_000, 600_001, False),
        (0.0, 0, 0, True),
    ],
)
def test_a_run_fits_into_the_months_budget_or_waits_for_the_next(
    limit: float | None, spent: int, cost: int, *, fits: bool
) -> None:
    """The sum of the month's runs may reach the limit and not pass it."""
    excess = find_excess(limit, spent, cost, NOW)
    assert fits is (excess is None)
    assert excess is None or excess.retry_after == pytest.approx(7.5 * 86_400)


async def test_one_key_supplies_at_most_its_share(wheel: Wheel) -> None:
    """Of 60 examples of one key and 12 of another, at a share of 0.75: 36 and 12 make the batch, the rest waits."""
    await wheel.dataset(threshold=48, minimum=10, holdout_minimum=4, key_share=0.75)
    envelope = {"specversion": "1.0", "source": "test", "type": "example.recorded"}
    given = lessons(72)
    for key, some in (("loud", given[:60]), ("quiet", given[60:])):
        assert [] == await wheel.drive.rows("SELECT 1 FROM training_runs WHERE tenant_id = $1", wheel.tenant)
        events = [
            parse_event(
                {**envelope, "id": f"{key}{n}", "penstockkey": key, "data": {"dataset": "faq", **one}}
            )
            for n, one in enumerate(some)
        ]
        await wheel.drive.publish_events(wheel.tenant, events)
        await wheel.drive.step(wheel.tenant)
    story = await wheel.until("submitted")
    rows = await wheel.drive.rows(
        "SELECT supplier, count(*) AS n FROM examples WHERE tenant_id = $1 AND status = 'reserved' GROUP BY 1 ORDER BY 1",
        wheel.tenant,
    )
    assert [("loud", 36), ("quiet", 12)] == [(row["supplier"], row["n"]) for row in rows]
    run = story.run
    assert (
        48
        == run.examples
        == sum((run.train_examples or 0, run.validation_examples or 0, run.holdout_examples or 0))
    )


async def test_a_paused_run_makes_no_job_until_it_is_resumed(wheel: Wheel) -> None:
    """Before the paid call a pause costs nothing; a cancellation works through it."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    run_id = (await wheel.until("submitted")).run.run_id
    await pause_run(wheel.gateway, wheel.tenant, run_id, actor="test")
    for _ in range(3):
        await wheel.drive.step(wheel.tenant)
    assert 0 == await wheel.faults.requests("jobs.create")
    await resume_run(wheel.gateway, wheel.tenant, run_id, actor="test")
    assert "promoted" == (await wheel.finish()).run.status


async def test_a_paused_job_is_held_at_the_trainer_and_never_stalls(wheel: Wheel) -> None:
    """The trainer is told to hold and to go on; time spent held is no silence."""
    await wheel.faults.add("jobs.run", "stuck")
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    run_id = (await wheel.until("running")).run.run_id
    await pause_run(wheel.gateway, wheel.tenant, run_id, actor="test")
    async with wheel.drive.owner.connection() as connection:
        await connection.execute(
            "UPDATE training_runs SET heard_at = now() - interval '7 hours' WHERE run_id = $1", run_id
        )
    await wheel.drive.step(wheel.tenant)
    assert ["paused"] == [job.status for job in await wheel.jobs(run_id)]
    assert "running" == (await wheel.newest()).run.status
    await wheel.faults.clear()
    await resume_run(wheel.gateway, wheel.tenant, run_id, actor="test")
    story = await wheel.finish()
    assert "promoted" == story.run.status
    assert "resumed" in [line["what"] for line in story.history]


async def test_a_trainer_that_cannot_hold_a_job_is_not_asked_again(wheel: Wheel) -> None:
    """The run goes on, and its history says why."""
    await wheel.faults.add("jobs.pause", "404")
    await wheel.faults.add("jobs.run", "stuck")
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    run_id = (await wheel.until("running")).run.run_id
    await pause_run(wheel.gateway, wheel.tenant, run_id, actor="test")
    await wheel.drive.step(wheel.tenant)
    await wheel.drive.step(wheel.tenant)
    assert 1 == await wheel.faults.requests("jobs.pause")
    await wheel.faults.clear()
    story = await wheel.finish()
    assert "promoted" == story.run.status
    assert "pause_refused" in [line["what"] for line in story.history]


async def test_what_is_withdrawn_before_the_files_are_made_is_not_trained_on(wheel: Wheel) -> None:
    """Taken back while the run waits: its file goes without it. Taken back afterwards: the run is not submitted."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(60))
    await wheel.until("preparing")
    [one, other] = await wheel.drive.rows(
        "SELECT example_id, messages FROM examples WHERE tenant_id = $1 AND split = 'train' ORDER BY example_id LIMIT 2",
        wheel.tenant,
    )
    await review(wheel.gateway, wheel.tenant, "faq", [one["example_id"]], "withdraw", actor="test")
    run = (await wheel.until("uploading")).run
    lines = [line async for line in export_run(wheel.gateway, wheel.tenant, run.run_id, "train")]
    assert run.train_examples == len(lines)
    assert training_line(one["messages"]) not in lines
    assert training_line(other["messages"]) in lines
    await review(wheel.gateway, wheel.tenant, "faq", [other["example_id"]], "withdraw", actor="test")
    story = await wheel.finish()
    assert ("failed", "conflict") == (story.run.status, story.run.error["code"])  # type: ignore[index]
    assert 0 == await wheel.faults.requests("jobs.create")


async def at_verdict(wheel: Wheel) -> tuple[UUID, Later]:
    """A run whose models have answered everything, and the outcome that would end it."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    run_id = (await wheel.until("evaluating")).run.run_id
    resources = wheel.drive.resources
    assert resources.models is not None
    async with Trainer.open(resources.settings) as trainer:
        wing = Wing(resources, trainer, resources.models)
        for _ in range(20):
            async with resources.database.transaction(wheel.tenant, readonly=True) as connection:
                row = await connection.fetchrow(queries("train").run, wheel.tenant, run_id)
                answers = await connection.fetch(queries("train").graded, wheel.tenant, run_id)
            assert row is not None
            if len(answers) >= 2 * row["holdout_examples"]:
                outcome = await evaluate(wing, read_run(row), 1)
                assert isinstance(outcome, Later)
                return run_id, outcome
            await wheel.drive.step(wheel.tenant)
    raise AssertionError("never all answered")


async def carry_out(wheel: Wheel, outcome: Later) -> list[str]:
    """Commit an outcome as the runtime does; what it says."""
    assert callable(outcome.effect)
    async with wheel.drive.resources.database.transaction(wheel.tenant) as connection:
        return [said.type for said in await outcome.effect(connection)]


async def test_a_model_is_not_promoted_over_one_that_it_was_not_compared_with(wheel: Wheel) -> None:
    """Somebody points the alias elsewhere after the answers and before the switch: the newcomer is compared with that too."""
    run_id, outcome = await at_verdict(wheel)
    async with wheel.drive.owner.connection() as connection:
        await connection.execute(
            "INSERT INTO model_aliases (tenant_id, alias, model) VALUES ($1, 'chat', 'another-model')",
            wheel.tenant,
        )
    assert [] == await carry_out(wheel, outcome)
    assert "evaluating" == (await wheel.newest()).run.status
    story = await wheel.finish()
    roles = [row["role"] for row in story.run.evaluation["table"]]  # type: ignore[index]
    assert (run_id, ["base", "serving", "tuned"]) == (story.run.run_id, roles)


async def test_a_run_that_is_cancelled_at_the_last_moment_is_not_promoted(wheel: Wheel) -> None:
    """Whoever cancels before the switch is committed wins."""
    run_id, outcome = await at_verdict(wheel)
    await cancel_run(wheel.gateway, wheel.tenant, run_id, actor="test")
    assert [] == await carry_out(wheel, outcome)
    assert "cancelled" == (await wheel.finish()).run.status
    assert [] == await list_aliases(wheel.gateway, wheel.tenant)

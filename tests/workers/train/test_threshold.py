import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.training_store import get_dataset
from schemas.envelope import parse_event
from tests.drive import Drive
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import example, lessons
from workers.commit import Committer

SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}


def numbered(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Distinct examples that nobody will train on."""
    return [example(f"question number {i}", f"answer number {i}") for i in range(start, start + count)]


async def triggers(wheel: Wheel) -> list[dict[str, Any]]:
    """The `training.batch_ready` events of our own, oldest first."""
    return await wheel.drive.rows(
        "SELECT status, data, due_at, finished_at FROM events WHERE tenant_id = $1 AND source = 'penstock'"
        " AND type = 'training.batch_ready' ORDER BY accept_no",
        wheel.tenant,
    )


async def test_a_threshold_fires_once_however_many_workers_count(wheel: Wheel) -> None:
    """Four workers record 400 examples at once, past a threshold of 24: one trigger, one run, nothing left out."""
    await wheel.dataset(**SMALL)
    envelope = {"specversion": "1.0", "source": "test", "type": "example.recorded"}
    events = [
        parse_event({**envelope, "id": f"e{i}", "data": {"dataset": "faq", **one}})
        for i, one in enumerate(numbered(400))
    ]
    accepted = await wheel.drive.publish_events(wheel.tenant, events)
    jobs = [(one.event_id, "example.recorded", "penstock:train") for one in accepted if one.event_id]
    drives = [await _another(wheel.drive) for _ in range(4)]
    await asyncio.gather(*(drive.run(jobs[i::4]) for i, drive in enumerate(drives)))
    assert {"free": 400} == await wheel.statuses()
    assert 1 == len(await triggers(wheel))
    await wheel.drive.step(wheel.tenant)
    assert {"reserved": 400} == await wheel.statuses()
    for drive in drives:
        await drive._committer.aclose()


async def _another(drive: Drive) -> Drive:
    """A second worker with connections and commits of its own."""
    other = object.__new__(Drive)
    other.__dict__.update(drive.__dict__)
    other._committer = Committer(drive.resources.database, drive.resources.bus)
    return other


async def test_examples_recorded_during_a_run_make_the_next_one(wheel: Wheel) -> None:
    """No example is in two runs, every run has at least the threshold, and the end of one looks for the next."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    await wheel.until("running", "queued", "validating")
    await wheel.record(lessons(120)[40:])
    await wheel.finish()
    rows = await wheel.drive.rows(
        "SELECT r.examples, count(x.example_id) AS kept FROM training_runs r"
        " JOIN examples x ON x.tenant_id = r.tenant_id AND x.run_id = r.run_id"
        " WHERE r.tenant_id = $1 GROUP BY r.run_id, r.examples ORDER BY r.run_id",
        wheel.tenant,
    )
    assert [(40, 40), (80, 80)] == [(row["examples"], row["kept"]) for row in rows]
    assert {"used": 120} == await wheel.statuses()


async def test_only_new_valid_examples_count(wheel: Wheel) -> None:
    """Copies are recorded once, and what holds a secret is kept apart: neither fills the threshold."""
    await wheel.dataset(**SMALL)
    copies = numbered(20) + [example(f"Question  NUMBER {i}!", f"answer number {i}") for i in range(20)]
    secrets = [example(f"ask {i}", "mail ada.l@harrow-weir.se") for i in range(10)]
    await wheel.record([*copies, *secrets])
    assert {"free": 20, "quarantined": 10} == await wheel.statuses()
    assert [] == await triggers(wheel)
    rows = await wheel.drive.rows(
        "SELECT DISTINCT reason FROM examples WHERE tenant_id = $1 AND status = 'quarantined'", wheel.tenant
    )
    assert [{"reason": "personal.email"}] == rows


async def test_the_threshold_waits_until_the_holdout_can_judge(wheel: Wheel) -> None:
    """100 examples may hold out fewer than 25: nothing fires that would be refused, and nothing is forgotten."""
    await wheel.dataset(threshold=10, minimum=10, holdout_minimum=25)
    fired_at = 0
    for start in range(0, 200, 10):
        await wheel.record(numbered(10, start))
        if await triggers(wheel):
            fired_at = start + 10
            break
    rows = await wheel.drive.rows(
        "SELECT count(*) AS n FROM examples WHERE tenant_id = $1 AND split = 'holdout'", wheel.tenant
    )
    assert 25 <= rows[0]["n"] < 25 + 10
    assert fired_at > 50


async def test_a_cooldown_delays_the_next_trigger(wheel: Wheel) -> None:
    """What fills the threshold during the cool-down waits for its end, and is not lost."""
    await wheel.dataset(**SMALL, cooldown_seconds=3600.0)
    await wheel.record(lessons(40))
    await wheel.until("promoted", "rejected")
    await wheel.record(lessons(120)[40:])
    first, second = await triggers(wheel)
    assert "done" == first["status"]
    assert second["due_at"] > datetime.now(UTC) + timedelta(minutes=50)
    await wheel.finish()
    assert {"used": 40, "free": 80} == await wheel.statuses()


async def test_too_many_failures_stop_what_fires_by_itself(wheel: Wheel) -> None:
    """After the last allowed failure nothing fires until somebody looks at the dataset; then it does."""
    await wheel.dataset(**SMALL, max_failures=1)
    await wheel.faults.add("jobs.run", "fail", times=1)
    await wheel.record(lessons(40))
    story = await wheel.finish()
    assert "failed" == story.run.status
    assert 1 == len(await triggers(wheel))
    await wheel.record(lessons(60)[40:])
    assert 1 == len(await triggers(wheel))
    await wheel.dataset(max_failures=1)
    assert 2 == len(await triggers(wheel))
    assert 0 == (await get_dataset(wheel.gateway, wheel.tenant, "faq")).failures
    story = await wheel.finish()
    assert "promoted" == story.run.status


async def test_a_maximum_age_starts_a_run_below_the_threshold(wheel: Wheel) -> None:
    """Examples do not wait for ever: the oldest one's age is reason enough, once the holdout can judge."""
    await wheel.dataset(minimum=10, holdout_minimum=4, max_age_hours=0.0001)
    await wheel.record(lessons(40))
    [trigger] = await triggers(wheel)
    assert {"dataset": "faq", "reason": "age"} == trigger["data"]
    story = await wheel.until("promoted", "rejected")
    assert ("age", 40) == (story.run.reason, story.run.examples)

from __future__ import annotations

import redis.asyncio

from infra.database import Database
from infra.erasure import Target, erase
from infra.trainer import Trainer
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import lessons


async def test_a_run_on_erased_examples_is_stopped_and_its_files_are_deleted(
    wheel: Wheel, gateway_database: Database, redis_client: redis.asyncio.Redis
) -> None:
    """The job ends, no file stays at the provider, the run is tainted, and the other examples are free again."""
    await wheel.dataset(threshold=30, minimum=10, holdout_minimum=1)
    await wheel.faults.add("jobs.run", "stuck")
    *others, about = lessons(40)
    data = {"dataset": "faq", **about}
    await wheel.drive.publish(wheel.tenant, "example.recorded", data, subjectref="person-7")
    await wheel.record(others)
    run_id = (await wheel.until("running")).run.run_id
    done = await erase(gateway_database, redis_client, wheel.tenant, Target("subject", "person-7"))
    assert (done.counts["examples"], done.tainted_runs) == (1, {str(run_id)})
    story = await wheel.finish()
    assert "cancelled" == story.run.status
    assert ["cancelled"] == [job.status for job in await wheel.jobs(run_id)]
    async with Trainer.open(wheel.drive.resources.settings) as trainer:
        assert [] == await trainer.files(f"penstock-{run_id}-")
    assert {"free": 39, "withdrawn": 1} == await wheel.statuses()
    [run] = await wheel.drive.rows("SELECT tainted_at FROM training_runs WHERE run_id = $1", run_id)
    assert run["tainted_at"] is not None

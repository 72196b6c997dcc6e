"""P4: one training run creates at most one paid job, whatever crashes and whenever."""

from cli.demo.examples import DATASET, examples
from infra.local.model.faults_client import Faults
from tests.stories.town import Town, event


async def teach(town: Town) -> None:
    """160 examples through the front door; the threshold does the rest."""
    await town.gateway()
    client = await town.tenant("acme")
    body = {"threshold": 100, "base_model": "local-chat", "approval": "automatic"}
    made = await client.put(f"/v1/datasets/{DATASET}", json=body)
    assert made.status_code in {200, 201}, made.text
    await town.publish("acme", [event("example.recorded", data) for data in examples()])


async def test_the_reply_to_create_is_lost_and_the_worker_is_killed(town: Town, faults: Faults) -> None:
    """The job was made, its reply was dropped, and the worker was killed -9: one job exists, and its model is promoted."""
    await faults.add("jobs.create", "drop_reply", times=1)
    await town.workers("train")
    await teach(town)

    async def created() -> bool:
        return await faults.requests("jobs.create") >= 1

    await town.until(created, "a job was created")
    await town.kill("train")
    await town.workers("train")

    async def ended() -> bool:
        return bool(
            await town.rows("SELECT 1 FROM training_runs WHERE status IN ('promoted', 'rejected', 'failed')")
        )

    await town.until(ended, "the run has ended", within=90)
    [run] = await town.rows("SELECT status, model, error FROM training_runs")
    assert ("promoted", None) == (run["status"], run["error"])
    assert await faults.served("jobs.create") == 1
    assert run["model"] == await town.value("SELECT model FROM model_aliases WHERE alias = 'chat'")

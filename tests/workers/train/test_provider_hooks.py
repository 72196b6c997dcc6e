import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import orjson
import pytest
from pydantic import SecretStr

from infra.provider_hooks import job_of
from infra.settings import Settings
from infra.signing_secrets import new_secret, parse_secret
from producers.gateway.server import open_server
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import lessons
from workers.deliver.sign import signed_headers

SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}
SECRET = new_secret()


@pytest.fixture
async def hook_url(settings: Settings) -> AsyncIterator[str]:
    """Where a gateway with a secret takes the provider's webhooks."""
    own = {"trainer_webhook_secret": SecretStr(SECRET), "gateway_port": 0, "ops_port": 0, "grace": 2.0}
    async with open_server(settings.model_copy(update=own)) as serving:
        yield f"{serving.url}/v1/hooks/openai"


def event(job_id: str) -> bytes:
    """A webhook's body as OpenAI sends it."""
    return orjson.dumps(
        {"object": "event", "id": "evt_1", "type": "fine_tuning.job.succeeded", "data": {"id": job_id}}
    )


async def waiting(wheel: Wheel) -> tuple[Any, float | None]:
    """When the step of the newest run is due, in the ledger and in the queue."""
    [row] = await wheel.drive.rows(
        "SELECT event_id, due_at FROM events WHERE tenant_id = $1 AND type = 'training.advance' AND finished_at IS NULL",
        wheel.tenant,
    )
    score = await wheel.drive.resources.redis.zscore("penstock:train", str(row["event_id"]))
    return row["due_at"], score


async def test_a_webhook_of_the_provider_wakes_the_look_once(wheel: Wheel, hook_url: str) -> None:
    """The job's end, told three times, makes its look due at once; the second time it is known already."""
    await wheel.faults.webhook(hook_url, SECRET, copies=3)
    await wheel.faults.add("jobs.run", "stuck")
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    run = (await wheel.until("running")).run
    redis = wheel.drive.resources.redis
    due, _ = await waiting(wheel)
    assert due is not None
    # The look is due in an hour; only the webhook can bring it forward.
    async with wheel.drive.owner.connection() as connection:
        event_id = await connection.fetchval(
            "UPDATE events SET due_at = now() + interval '1 hour' WHERE tenant_id = $1 AND type = 'training.advance'"
            " AND finished_at IS NULL RETURNING event_id",
            wheel.tenant,
        )
    later = (time.time() + 3600) * 1000
    await redis.zadd("penstock:train", {str(event_id): later})
    await wheel.faults.clear()
    async with asyncio.timeout(30):
        due_at, score = await waiting(wheel)
        while due_at is not None or score is None or score >= later:
            due_at, score = await waiting(wheel)
    hooks = await wheel.drive.rows(
        "SELECT count(*) AS n FROM provider_hooks WHERE received_at > $1", run.started_at
    )
    assert 1 == hooks[0]["n"]
    assert "promoted" == (await wheel.finish()).run.status


async def test_a_webhook_has_to_be_signed_and_recent(hook_url: str) -> None:
    """What OpenAI's own library takes is taken; another key, another body, an old time or a missing header is not."""
    body = event("ftjob-stranger")
    now = int(time.time())
    good = sign("wh_1", now, body)
    client = openai.OpenAI(api_key="none", webhook_secret=SECRET)
    assert "ftjob-stranger" == client.webhooks.unwrap(body, good).data.id  # type: ignore[union-attr]
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        cases = [
            (good, body, 204),
            (good, body, 204),
            (sign("wh_2", now, orjson.dumps({"type": "response.completed", "data": {"id": "r"}})), None, 401),
            (sign("wh_3", now - 3600, body), body, 401),
            (sign("wh_4", now, body, new_secret()), body, 401),
            ({**good, "webhook-id": "wh_other"}, body, 401),
            ({name: value for name, value in good.items() if name != "webhook-signature"}, body, 401),
            ({}, body, 401),
        ]
        statuses = [
            (await http.post(hook_url, content=body if sent is None else sent, headers=headers)).status_code
            for headers, sent, _ in cases
        ]
    assert [wanted for _, _, wanted in cases] == statuses


async def test_without_a_secret_there_is_no_such_address(settings: Settings) -> None:
    """A gateway that nobody told a secret takes no webhook, signed or not."""
    own = {"gateway_port": 0, "ops_port": 0, "grace": 2.0}
    async with (
        open_server(settings.model_copy(update=own)) as serving,
        httpx2.AsyncClient(trust_env=False, timeout=30) as http,
    ):
        body = event("ftjob-1")
        reply = await http.post(
            f"{serving.url}/v1/hooks/openai", content=body, headers=sign("wh_1", int(time.time()), body)
        )
    assert 404 == reply.status_code


def sign(webhook_id: str, at: int, body: bytes, secret: str = SECRET) -> dict[str, str]:
    """A webhook's headers."""
    return signed_headers([parse_secret(secret)], webhook_id, at, body)


@pytest.mark.parametrize(
    ("told", "job"),
    [
        ({"type": "fine_tuning.job.failed", "data": {"id": "ftjob-1"}}, "ftjob-1"),
        ({"type": "batch.completed", "data": {"id": "batch-1"}}, None),
        ({"type": "fine_tuning.job.failed", "data": {"id": 7}}, None),
        ({"type": "fine_tuning.job.failed"}, None),
        ([], None),
    ],
)
def test_only_events_about_jobs_count(told: Any, job: str | None) -> None:
    """The payload names the job; anything else is somebody else's."""
    assert job == job_of(told)

"""Conditions of a job pass through here to the tests that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from openai import AsyncOpenAI
from openai.types.fine_tuning import FineTuningJob

ENDED = frozenset({"succeeded", "failed", "cancelled"})
PATIENCE = 60.0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - the condition is on the other side of a socket
            await asyncio.sleep(0.02)


async def job_in(client: AsyncOpenAI, job_id: str, statuses: frozenset[str]) -> FineTuningJob:
    """Wait until a job is in one of some statuses."""

    async def there() -> bool:
        return (await client.fine_tuning.jobs.retrieve(job_id)).status in statuses

    await until(there)
    return await client.fine_tuning.jobs.retrieve(job_id)


async def finished_job(client: AsyncOpenAI, job_id: str) -> FineTuningJob:
    """Wait until a job has ended."""
    return await job_in(client, job_id, ENDED)

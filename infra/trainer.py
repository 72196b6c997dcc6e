"""Training files and fine-tuning jobs go to the trainer here, and what it says of them comes back as plain values.

The only home of `files` and `fine_tuning.jobs`. The trainer is whoever speaks them at a base URL. Nothing is retried
here: creating a job is paid and carries no idempotency key, so a caller that is left in doubt looks for the job by its
metadata before it creates again (promise P4). Replies are read from raw bytes: servers differ, and the SDK's models
do not say when a field is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import orjson

from infra.llm import open_client
from infra.llm_errors import translated
from infra.llm_models import ModelInfo, describe
from infra.settings import Settings
from infra.trainer_replies import (
    Checkpoint,
    Job,
    JobEvent,
    TrainingFile,
    as_object,
    read_checkpoint,
    read_event,
    read_file,
    read_job,
    read_page,
)
from schemas.errors import PenstockError, PoolPaused, RateLimited, Refused

if TYPE_CHECKING:
    from openai import AsyncOpenAI

PAGE = 100
MAX_PAGES = 200


def training_line(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """One line of a training file, the same bytes whenever it is written."""
    return orjson.dumps({"messages": list(messages)}) + b"\n"


def is_certain(error: PenstockError) -> bool:
    """Whether a failed create call certainly created nothing: the server refused it, by a 4xx that means so."""
    return isinstance(error, Refused | RateLimited | PoolPaused)


class Trainer:
    """A server of training files and fine-tuning jobs."""

    __slots__ = ("_client",)

    def __init__(self, client: AsyncOpenAI) -> None:
        """Speak through a client that somebody else opened, without retries."""
        self._client = client

    @classmethod
    def open(cls, settings: Settings) -> AbstractAsyncContextManager[Self]:
        """Open a connection pool to the trainer: the model API's server unless another is set.

        Raises:
            Misconfigured: there is no key; names the setting.
        """
        own = settings.trainer_base_url is not None
        base_url = settings.trainer_base_url or settings.openai_base_url
        name = "PENSTOCK_TRAINER_API_KEY" if own else "OPENAI_API_KEY"
        key = settings.trainer_api_key or (None if own else settings.openai_api_key)

        @asynccontextmanager
        async def opened() -> AsyncIterator[Self]:
            async with open_client(
                base_url,
                None if key is None else key.get_secret_value(),
                timeout=settings.model_timeout,
                key_setting=name,
            ) as client:
                yield cls(client)

        return opened()

    async def upload(self, name: str, content: bytes) -> TrainingFile:
        """Upload a training file, or find the one that an earlier attempt uploaded.

        Args:
            name: holds the hash of the content, so that equal names are equal files.
            content: JSONL.

        Raises:
            Refused: with `provider_status` 403 where the provider does not train for us.
            PenstockError: see `infra.llm_errors`; uploading again is safe.
        """
        for found in await self.files(name):
            if found.size == len(content):
                return found
        with translated():
            reply = await self._client.files.with_raw_response.create(
                file=(name, content, "application/jsonl"), purpose="fine-tune"
            )
            body = reply.http_response.content
        return read_file(as_object(body))

    async def files(self, prefix: str) -> list[TrainingFile]:
        """Training files whose name begins so."""

        async def page(after: str | None) -> bytes:
            more = _after(after)
            reply = await self._client.files.with_raw_response.list(
                purpose="fine-tune", limit=PAGE, order="desc", **more
            )
            return reply.http_response.content

        return [
            one
            async for item in _pages(page)
            if (one := read_file(item)).name.startswith(prefix) and one.purpose == "fine-tune"
        ]

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; one that is gone already is as good."""
        try:
            with translated():
                await self._client.files.with_raw_response.delete(file_id)
        except Refused as error:
            if error.provider_status != 404:
                raise

    async def create_job(
        self,
        *,
        model: str,
        training_file: str,
        validation_file: str | None,
        suffix: str,
        metadata: Mapping[str, str],
        epochs: int | None,
        seed: int | None = None,
    ) -> Job:
        """Create a paid job. Any error for which `is_certain` is false leaves it open whether the job exists.

        Raises:
            PenstockError: see `infra.llm_errors` and `is_certain`.
        """
        optional: dict[str, Any] = {}
        if validation_file is not None:
            optional["validation_file"] = validation_file
        if seed is not None:
            optional["seed"] = seed
        if epochs is not None:
            optional["method"] = {
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": epochs}},
            }
        with translated():
            reply = await self._client.fine_tuning.jobs.with_raw_response.create(
                model=model, training_file=training_file, suffix=suffix, metadata=dict(metadata), **optional
            )
            body = reply.http_response.content
        return read_job(as_object(body))

    async def find_jobs(self, metadata: Mapping[str, str]) -> list[Job]:
        """Jobs that carry these metadata, oldest first.

        The server is asked to filter and every job is held against the metadata here too: some servers ignore the
        filter, and adopting a stranger's job would be worse than finding none.
        """

        def pages(options: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
            async def page(after: str | None) -> bytes:
                more = _after(after)
                reply = await self._client.fine_tuning.jobs.with_raw_response.list(
                    limit=PAGE, **options, **more
                )
                return reply.http_response.content

            return _pages(page)

        try:
            items = [item async for item in pages({"metadata": dict(metadata)})]
        except Refused as error:
            if error.provider_status not in {400, 422}:
                raise
            items = [item async for item in pages({})]
        jobs = [read_job(item) for item in items]
        ours = [job for job in jobs if metadata.items() <= job.metadata.items()]
        return sorted(ours, key=lambda job: (job.created_at or 0, job.job_id))

    async def job(self, job_id: str) -> Job:
        """What the trainer says of a job now."""
        with translated():
            reply = await self._client.fine_tuning.jobs.with_raw_response.retrieve(job_id)
            body = reply.http_response.content
        return read_job(as_object(body))

    async def cancel_job(self, job_id: str) -> Job:
        """Cancel a job; one that has ended is returned as it ended."""
        try:
            with translated():
                reply = await self._client.fine_tuning.jobs.with_raw_response.cancel(job_id)
                body = reply.http_response.content
        except Refused:
            # The usual reason is that it has ended meanwhile; if it has not, its state says so.
            return await self.job(job_id)
        return read_job(as_object(body))

    async def pause_job(self, job_id: str) -> None:
        """Hold a job until it is resumed.

        Raises:
            Refused: the trainer cannot, or the job has ended.
        """
        with translated():
            await self._client.fine_tuning.jobs.with_raw_response.pause(job_id)

    async def resume_job(self, job_id: str) -> None:
        """Let a held job go on.

        Raises:
            Refused: it is not held.
        """
        with translated():
            await self._client.fine_tuning.jobs.with_raw_response.resume(job_id)

    async def events(self, job_id: str, known: Callable[[str], bool]) -> list[JobEvent]:
        """Events of a job in the trainer's order, oldest first, back to where nothing new has come for a page.

        Args:
            job_id: the trainer's id of the job.
            known: whether an event's id is stored already.
        """

        async def page(after: str | None) -> bytes:
            more = _after(after)
            reply = await self._client.fine_tuning.jobs.with_raw_response.list_events(
                job_id, limit=PAGE, **more
            )
            return reply.http_response.content

        found: list[JobEvent] = []
        stale = 0
        async for item in _pages(page):
            event = read_event(item)
            if known(event.provider_id):
                stale += 1
                if stale >= PAGE:
                    break
                continue
            found.append(event)
        return found[::-1]  # the trainer lists the newest first

    async def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Usable models that a job left on its way, first step first."""

        async def page(after: str | None) -> bytes:
            more = _after(after)
            reply = await self._client.fine_tuning.jobs.checkpoints.with_raw_response.list(
                job_id, limit=PAGE, **more
            )
            return reply.http_response.content

        return sorted(
            [read_checkpoint(item) async for item in _pages(page)], key=lambda checkpoint: checkpoint.step
        )

    async def model(self, name: str) -> ModelInfo | None:
        """Whether the trainer has a model, and when it ends it."""
        return await describe(self._client, name)


async def _pages(page: Callable[[str | None], Awaitable[bytes]]) -> AsyncIterator[dict[str, Any]]:
    """All items of a list, page by page; a server that repeats its first page is not followed for ever."""
    after: str | None = None
    for _ in range(MAX_PAGES):
        with translated():
            items, more = read_page(orjson.loads(await page(after)))
        for item in items:
            yield item
        last = items[-1].get("id") if items else None
        if not more or not isinstance(last, str) or last == after:
            return
        after = last


def _after(after: str | None) -> dict[str, Any]:
    return {} if after is None else {"after": after}

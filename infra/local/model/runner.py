"""Fine-tuning jobs pass through here from validation to the tuned model; each step of theirs becomes an event.

A job that a stopped server left unfinished is taken up again at the next start: training is repeated from its
seed, which gives the same head, up to the step that was already reported, and goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog

from infra.local.model.catalog import Catalog
from infra.local.model.faults import RUNNING, Faults
from infra.local.model.files import Files
from infra.local.model.job_request import tuned_name
from infra.local.model.job_work import Prepared, prepare, result_csv
from infra.local.model.records import JobFailed, Records
from infra.local.model.store import Doc
from infra.local.model.training import Metrics
from infra.local.model.training_file import BadTrainingFile
from infra.local.model.vectors import Encoder

AT_ONCE = 8
STATUS_SECONDS = 0.05
"""How long a job is seen in each status before it runs."""
MOST_EVENTS = 200

_log = structlog.get_logger()


@dataclass(slots=True)
class Pace:
    """How long a job's training takes at least, in seconds; changeable while the server runs."""

    seconds: float


class Runner:
    """Runs jobs, at most `AT_ONCE` of them training at a time."""

    def __init__(
        self,
        *,
        records: Records,
        files: Files,
        catalog: Catalog,
        encoder: Encoder,
        faults: Faults,
        pace: Pace,
    ) -> None:
        self._records = records
        self._files = files
        self._catalog = catalog
        self._encoder = encoder
        self._faults = faults
        self._pace = pace
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._going: dict[str, asyncio.Event] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    def recover(self) -> None:
        """Take up every job that has not ended."""
        for job_id in self._records.unfinished():
            self.start(job_id)

    async def close(self) -> None:
        """Leave unfinished jobs as they are; the next server takes them up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start(self, job_id: str) -> None:
        """Begin to run a job."""
        going = self._going[job_id] = asyncio.Event()
        if self._records.job(job_id)["status"] != "paused":
            going.set()
        self._tasks[job_id] = asyncio.create_task(self._run(job_id), name=job_id)

    def cancel(self, job: Doc) -> Doc:
        """End a job; no model comes of it."""
        self._tasks[job["id"]].cancel()
        self._records.say(job["id"], "The job was cancelled.", level="warn")
        return self._records.end(job["id"], "cancelled")

    def pause(self, job: Doc) -> Doc:
        """Hold a job before its next step; pausing twice is pausing once."""
        self._going[job["id"]].clear()
        if job["status"] == "paused":
            return job
        self._records.say(job["id"], "The job was paused.")
        return self._records.change(
            job["id"], status="paused", _paused_from=job["status"], estimated_finish=None
        )

    def resume(self, job: Doc) -> Doc:
        """Let a paused job go on where it was."""
        self._records.say(job["id"], "The job was resumed.")
        changed = self._records.change(job["id"], status=job["_paused_from"], _paused_from=None)
        self._going[job["id"]].set()
        return changed

    async def _run(self, job_id: str) -> None:
        try:
            await self._stages(job_id)
        except JobFailed as failed:
            self._records.fail(job_id, failed)
        except Exception:  # noqa: BLE001 - the last to see it; without a status the job would run for ever
            _log.exception("model.job_crashed", job_id=job_id)
            self._records.fail(
                job_id, JobFailed("server_error", "The server failed while running the job.", None)
            )
        finally:
            del self._tasks[job_id], self._going[job_id]

    async def _stages(self, job_id: str) -> None:
        records = self._records
        job = records.job(job_id)
        if not records.began(job_id):
            records.say(job_id, f"Created fine-tuning job: {job_id}")
            records.say(job_id, f"Validating training file: {job['training_file']}")
        await self._wait(job_id, STATUS_SECONDS)
        prepared = await self._prepare(job)
        if records.phase(job_id) == "validating_files":
            chosen = prepared.hyperparameters
            method = {"type": "supervised", "supervised": {"hyperparameters": chosen}}
            records.advance(job_id, "queued", hyperparameters=chosen, method=method)
            records.say(job_id, "Files validated, moving job to queued state")
        async with self._places:
            await self._wait(job_id, STATUS_SECONDS)
            if records.phase(job_id) == "queued":
                records.advance(job_id, "running")
                records.say(job_id, "Fine-tuning job started")
            await self._finish(job_id, prepared, await self._train(job_id, prepared))

    async def _prepare(self, job: Doc) -> Prepared:
        contents: dict[str, bytes | None] = {}
        for param in ("training_file", "validation_file"):
            contents[param] = None if job[param] is None else await self._files.read(job[param])
            if job[param] is not None and contents[param] is None:
                raise JobFailed(f"invalid_{param}", "The file does not exist any more.", param)
        try:
            return await asyncio.to_thread(
                prepare, contents["training_file"], contents["validation_file"], self._encoder, job
            )
        except BadTrainingFile as bad:
            raise JobFailed(bad.code, bad.message, bad.param) from bad

    async def _train(self, job_id: str, prepared: Prepared) -> list[Metrics]:
        training, reported = prepared.training, self._records.job(job_id)["_step"]
        measured: list[Metrics] = []
        while training.done < training.total:
            if training.done >= reported:
                await self._wait(job_id, self._pace.seconds / training.total)
                await self._show_fault(job_id)
            metrics = await asyncio.to_thread(training.step)
            measured.append(metrics)
            if metrics.step > reported:
                self._report(job_id, prepared, metrics)
            if training.epoch_ended:
                await self._checkpoint(job_id, prepared, metrics)
        return measured

    def _report(self, job_id: str, prepared: Prepared, metrics: Metrics) -> None:
        total = prepared.training.total
        left = (total - metrics.step) * self._pace.seconds / total
        self._records.change(job_id, _step=metrics.step, estimated_finish=int(time.time() + left + 1))
        every = -(-total // MOST_EVENTS)
        if metrics.step % every == 0 or prepared.training.epoch_ended:
            valid = "" if metrics.valid_loss is None else f", validation loss={metrics.valid_loss:.4f}"
            said = f"Step {metrics.step}/{total}: training loss={metrics.train_loss:.4f}{valid}"
            self._records.say(job_id, said, data={**metrics.named(), "total_steps": total})

    async def _checkpoint(self, job_id: str, prepared: Prepared, metrics: Metrics) -> None:
        checkpoint_id = f"ftckpt_{job_id.removeprefix('ftjob-')}_{metrics.step}"
        if self._records.checkpointed(checkpoint_id):
            return
        name = f"{tuned_name(self._records.job(job_id))}:ckpt-step-{metrics.step}"
        await self._catalog.add(name, f"{checkpoint_id}.npz", prepared.training.head.copy(), prepared.lesson)
        self._records.checkpoint(job_id, checkpoint_id, name, metrics.named())

    async def _finish(self, job_id: str, prepared: Prepared, measured: list[Metrics]) -> None:
        name = tuned_name(self._records.job(job_id))
        result = await self._files.keep("step_metrics.csv", "fine-tune-results", result_csv(measured))
        await self._catalog.add(name, f"{job_id}.npz", prepared.training.head, prepared.lesson)
        self._records.say(job_id, f"New fine-tuned model created: {name}")
        self._records.say(job_id, "The job has successfully completed")
        trained = prepared.tokens * prepared.hyperparameters["n_epochs"]
        self._records.end(
            job_id, "succeeded", fine_tuned_model=name, result_files=[result["id"]], trained_tokens=trained
        )

    async def _show_fault(self, job_id: str) -> None:
        """Fail, or stand still until the fault is cleared, when a test says so."""
        job = self._records.job(job_id)
        named = "\n".join([job_id, job["user_provided_suffix"] or "", *(job["metadata"] or {}).values()])
        fault = self._faults.take(RUNNING, lambda: named)
        if fault is None:
            return
        if fault.kind == "fail":
            raise JobFailed("server_error", fault.message or "The job failed due to an internal error.", None)
        await self._faults.cleared(fault)

    async def _wait(self, job_id: str, seconds: float) -> None:
        """Let time pass, and wait on while the job is paused."""
        await asyncio.sleep(seconds)
        await self._going[job_id].wait()

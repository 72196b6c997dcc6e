"""What is known of a fine-tuning job passes through here: its object and its events, on their way to the store."""

from __future__ import annotations

import secrets
import time

from infra.local.model.hooks import Hooks
from infra.local.model.store import Doc, Store

ENDED = frozenset({"succeeded", "failed", "cancelled"})


class JobFailed(Exception):
    """The job ends as failed, with this error."""

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.error: Doc = {"code": code, "message": message, "param": param}


class Records:
    """Jobs and their events in the store."""

    def __init__(self, store: Store, hooks: Hooks) -> None:
        self._store = store
        self._hooks = hooks

    def unfinished(self) -> list[str]:
        """The ids of all jobs that have not ended, oldest first."""
        return [job["id"] for job in self._store.all("job") if job["status"] not in ENDED]

    def job(self, job_id: str) -> Doc:
        """A job that exists; jobs are never deleted."""
        job = self._store.get("job", job_id)
        assert job is not None
        return job

    def change(self, job_id: str, **values: object) -> Doc:
        """Change a job; returns it as it is then."""
        job = {**self.job(job_id), **values}
        self._store.update("job", job)
        return job

    def phase(self, job_id: str) -> str:
        """How far a job is; for a paused one, how far it was."""
        job = self.job(job_id)
        return str(job["_paused_from"] or job["status"])

    def advance(self, job_id: str, status: str, **values: object) -> None:
        """Move on; a job that was paused meanwhile moves on when it is resumed."""
        paused = self.job(job_id)["status"] == "paused"
        self.change(job_id, **{"_paused_from" if paused else "status": status}, **values)

    def end(self, job_id: str, status: str, **values: object) -> Doc:
        """Give a job its last status, and tell whoever listens."""
        ended = {"finished_at": int(time.time()), "estimated_finish": None, "_paused_from": None}
        job = self.change(job_id, status=status, **ended, **values)
        self._hooks.job_ended(job_id, status)
        return job

    def fail(self, job_id: str, failed: JobFailed) -> None:
        """End a job as failed, saying why."""
        self.say(job_id, f"The job failed: {failed.error['message']}", level="error")
        self.end(job_id, "failed", error=failed.error)

    def began(self, job_id: str) -> bool:
        """Whether anything was said about the job yet."""
        return bool(self._store.all("event", parent=job_id))

    def say(self, job_id: str, message: str, *, level: str = "info", data: Doc | None = None) -> None:
        """Add an event; with data it is one of metrics."""
        event = {
            "id": f"ftevent-{secrets.token_hex(12)}",
            "object": "fine_tuning.job.event",
            "created_at": int(time.time()),
            "level": level,
            "message": message,
            "type": "message" if data is None else "metrics",
            "data": data or {},
        }
        self._store.insert("event", event, parent=job_id)

    def checkpointed(self, checkpoint_id: str) -> bool:
        """Whether a checkpoint is there already."""
        return self._store.get("checkpoint", checkpoint_id) is not None

    def checkpoint(self, job_id: str, checkpoint_id: str, model: str, metrics: Doc) -> None:
        """Enter a checkpoint and say so."""
        doc = {
            "id": checkpoint_id,
            "object": "fine_tuning.job.checkpoint",
            "created_at": int(time.time()),
            "fine_tuned_model_checkpoint": model,
            "step_number": metrics["step"],
            "metrics": metrics,
            "fine_tuning_job_id": job_id,
        }
        self._store.insert("checkpoint", doc, parent=job_id)
        self.say(job_id, f"Checkpoint created at step {metrics['step']}")

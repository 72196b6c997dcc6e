"""Requests about fine-tuning jobs pass through here; the jobs themselves go on to the runner."""

from __future__ import annotations

import re

from infra.local.model.catalog import Catalog
from infra.local.model.errors import invalid, no_such
from infra.local.model.fields import Fields, read_json, read_limit
from infra.local.model.files import Files
from infra.local.model.job_request import public, read_job
from infra.local.model.records import ENDED
from infra.local.model.reply import Ask, Reply, Usage, json_reply, listing
from infra.local.model.runner import Runner
from infra.local.model.store import Doc, Store, page

_FILTER = re.compile(r"^metadata\[(.*)\]$", re.DOTALL)
MOST_LISTED = 100


class Jobs:
    """The endpoints under /v1/fine_tuning/jobs."""

    def __init__(self, store: Store, files: Files, catalog: Catalog, runner: Runner) -> None:
        self._store = store
        self._files = files
        self._catalog = catalog
        self._runner = runner

    async def create(self, ask: Ask) -> Reply:
        """Enter a job and start it."""
        job = read_job(Fields(read_json(ask.body)))
        self._catalog.trainable(job["model"])
        for param in ("training_file", "validation_file"):
            self._check_file(param, job[param])
        self._store.insert("job", job)
        self._runner.start(job["id"])
        return json_reply(public(job), usage=Usage(inputs=1, model=job["model"]))

    async def list_all(self, ask: Ask) -> Reply:
        """A page of jobs, newest first, those with the wanted metadata only."""
        query = ask.request.query_params
        wanted = {found.group(1): value for name, value in query.items() if (found := _FILTER.match(name))}
        docs = self._store.all("job")[::-1]
        if ask.shows("stale"):
            docs = docs[1:]
        if not ask.shows("ignore_filter"):
            if query.get("metadata") == "null":
                docs = [job for job in docs if job["metadata"] is None]
            docs = [job for job in docs if wanted.items() <= (job["metadata"] or {}).items()]
        some, more = page(docs, after=query.get("after"), limit=read_limit(query, 20, MOST_LISTED))
        return listing([public(job) for job in some], has_more=more)

    async def retrieve(self, ask: Ask) -> Reply:
        """One job."""
        job = public(self._found(ask.id))
        return json_reply({**job, "status": "pending"} if ask.shows("odd_status") else job)

    async def cancel(self, ask: Ask) -> Reply:
        """End a job for good."""
        return json_reply(public(self._runner.cancel(self._unfinished(ask.id))))

    async def pause(self, ask: Ask) -> Reply:
        """Hold a job until it is resumed."""
        return json_reply(public(self._runner.pause(self._unfinished(ask.id))))

    async def resume(self, ask: Ask) -> Reply:
        """Let a paused job go on."""
        job = self._unfinished(ask.id)
        if job["status"] != "paused":
            raise invalid(f"Job {job['id']} is not paused.", None, "invalid_job_status")
        return json_reply(public(self._runner.resume(job)))

    async def events(self, ask: Ask) -> Reply:
        """A page of a job's events, newest first."""
        return self._children(ask, "event", 20)

    async def checkpoints(self, ask: Ask) -> Reply:
        """A page of a job's checkpoints, newest first."""
        return self._children(ask, "checkpoint", 10)

    def _children(self, ask: Ask, kind: str, usual: int) -> Reply:
        job = self._found(ask.id)
        query = ask.request.query_params
        docs = self._store.all(kind, parent=job["id"])[::-1]
        some, more = page(docs, after=query.get("after"), limit=read_limit(query, usual, MOST_LISTED))
        return listing([dict(doc) for doc in some], has_more=more)

    def _check_file(self, param: str, file_id: str | None) -> None:
        if file_id is None:
            return
        doc = self._files.known(file_id)
        if doc is None:
            raise invalid(f"Invalid '{param}': the file does not exist.", param, "file_not_found")
        if doc["purpose"] != "fine-tune":
            raise invalid(f"Invalid '{param}': its purpose is not fine-tune.", param, "invalid_file_purpose")

    def _found(self, job_id: str) -> Doc:
        job = self._store.get("job", job_id)
        if job is None:
            raise no_such("fine-tuning job", job_id)
        return job

    def _unfinished(self, job_id: str) -> Doc:
        job = self._found(job_id)
        if job["status"] in ENDED:
            raise invalid(f"Job {job_id} has already {job['status']}.", None, "invalid_job_status")
        return job

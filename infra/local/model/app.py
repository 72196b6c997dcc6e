"""The server's parts are put together here, and every path is given to the part that answers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.local.model.admin import Admin
from infra.local.model.calls import Calls
from infra.local.model.catalog import Catalog
from infra.local.model.chat import Chat
from infra.local.model.door import Desk, Door, Handler
from infra.local.model.embeddings import Embeddings
from infra.local.model.errors import ApiError
from infra.local.model.faults import Faults
from infra.local.model.files import Files
from infra.local.model.hooks import Hooks
from infra.local.model.jobs import Jobs
from infra.local.model.latency import Latency
from infra.local.model.reading import Reader
from infra.local.model.records import Records
from infra.local.model.runner import Pace, Runner
from infra.local.model.store import Store
from infra.local.model.vectors import Encoder

HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""A page in a browser that points a name of its own at this address is refused."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a server is run: its folder, its key, and how long a job's training takes at least."""

    state: Path
    key: str
    train_seconds: float


@asynccontextmanager
async def build_app(options: Options, closing: asyncio.Event) -> AsyncIterator[Starlette]:
    """The app with its jobs running; both end with the context."""
    with Store(options.state) as store:
        encoder = await asyncio.to_thread(Encoder.load)
        pace, hooks = Pace(options.train_seconds), Hooks()
        desk = Desk(options.key, Faults(), Calls(), Latency(), closing)
        files, catalog, embeddings = Files(store), Catalog(store), Embeddings(encoder)
        runner = Runner(
            records=Records(store, hooks),
            files=files,
            catalog=catalog,
            encoder=encoder,
            faults=desk.faults,
            pace=pace,
        )
        routes = [
            *_routes(desk, embeddings, Chat(Reader(encoder), catalog), catalog),
            *_training_routes(desk, files, Jobs(store, files, catalog, runner)),
            *Admin(desk=desk, pace=pace, catalog=catalog, hooks=hooks).routes(),
        ]
        runner.recover()
        try:
            yield Starlette(
                routes=routes,
                middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)],
                exception_handlers={HTTPException: _no_such_path},
            )
        finally:
            embeddings.close()
            await runner.close()
            await hooks.close()


def _routes(desk: Desk, embeddings: Embeddings, chat: Chat, catalog: Catalog) -> list[Route]:
    return [
        _v1(desk, "POST", "/embeddings", "embeddings", embeddings.create),
        _v1(desk, "POST", "/chat/completions", "chat", chat.create),
        _v1(desk, "GET", "/models", "models.list", catalog.list_all),
        _v1(desk, "GET", "/models/{id:path}", "models.retrieve", catalog.retrieve),
        _v1(desk, "DELETE", "/models/{id:path}", "models.delete", catalog.delete),
    ]


def _training_routes(desk: Desk, files: Files, jobs: Jobs) -> list[Route]:
    job = "/fine_tuning/jobs/{id}"
    return [
        _v1(desk, "POST", "/files", "files.create", files.create),
        _v1(desk, "GET", "/files", "files.list", files.list_all),
        _v1(desk, "GET", "/files/{id}", "files.retrieve", files.retrieve),
        _v1(desk, "GET", "/files/{id}/content", "files.content", files.content),
        _v1(desk, "DELETE", "/files/{id}", "files.delete", files.delete),
        _v1(desk, "POST", "/fine_tuning/jobs", "jobs.create", jobs.create),
        _v1(desk, "GET", "/fine_tuning/jobs", "jobs.list", jobs.list_all),
        _v1(desk, "GET", job, "jobs.retrieve", jobs.retrieve),
        _v1(desk, "POST", f"{job}/cancel", "jobs.cancel", jobs.cancel),
        _v1(desk, "POST", f"{job}/pause", "jobs.pause", jobs.pause),
        _v1(desk, "POST", f"{job}/resume", "jobs.resume", jobs.resume),
        _v1(desk, "GET", f"{job}/events", "jobs.events", jobs.events),
        _v1(desk, "GET", f"{job}/checkpoints", "jobs.checkpoints", jobs.checkpoints),
    ]


def _v1(desk: Desk, method: str, path: str, endpoint: str, handler: Handler) -> Route:
    return Route(f"/v1{path}", Door(endpoint, handler, desk), methods=[method])


async def _no_such_path(_request: Request, error: Exception) -> Response:
    """Unknown paths and methods, in the shape of every other error."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    refused = ApiError(status, "Unknown request URL or method.", code="unknown_url")
    return Response(refused.body(), status, media_type="application/json")

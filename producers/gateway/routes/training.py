"""Training runs are looked at and steered here, and the models that came of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from infra import model_aliases, training_runs
from infra.aliases import DEFAULT_ALIAS
from infra.keys import Scope
from infra.training_store import MOST as MOST_LISTED
from producers.gateway.access import Allow, Caller
from producers.gateway.addresses import as_known_name, as_uuid
from producers.gateway.body import read_model
from producers.gateway.idempotency import Remembered
from producers.gateway.openapi import answers, takes
from producers.gateway.paging import PageQuery, Paging, decode_cursor, page, slice_page
from producers.gateway.resources import gateway_of
from producers.gateway.respond import json_response
from producers.gateway.shapes.training import (
    AliasView,
    ModelsView,
    RollbackBody,
    RunPage,
    RunStoryView,
    RunView,
)

router = APIRouter(tags=["training"], route_class=Remembered)
Trainer = Annotated[Caller, Depends(Allow(Scope.TRAIN))]
Reader = Annotated[Caller, Depends(Allow(Scope.TRAIN, Scope.QUERY))]
ONE = "/v1/training/runs/{run_id}"
MOST = MOST_LISTED - 1
"""Rows that the store gives at once, less the one that tells of the next page."""


class RunQuery(PageQuery):
    """Which runs to list."""

    dataset: Annotated[str | None, Field(max_length=127)] = None


@router.get("/v1/training/runs", responses=answers(RunPage))
async def listing(request: Request, caller: Trainer, query: Annotated[RunQuery, Query()]) -> Response:
    """Training runs, newest first."""
    place = decode_cursor(query.cursor, [str])
    limit = min(query.limit, MOST)
    runs = await training_runs.list_runs(
        gateway_of(request).database,
        caller.tenant_id,
        dataset=query.dataset,
        before=None if place is None else as_uuid(place[0]),
        limit=limit + 1,
    )
    items = [{**asdict(run), "run_id": str(run.run_id)} for run in runs]
    return json_response(page(items, limit, ["run_id"]))


@router.get(ONE, responses=answers(RunStoryView))
async def show(request: Request, caller: Trainer, run_id: str) -> Response:
    """One training run with its losses, its evaluation and all that happened in it."""
    story = await training_runs.show_run(gateway_of(request).database, caller.tenant_id, as_uuid(run_id))
    return json_response({**asdict(story.run), "losses": story.losses, "history": story.history})


@router.post(ONE + "/cancel", status_code=202, responses=answers(RunView, 202))
async def cancel(request: Request, caller: Trainer, run_id: str) -> Response:
    """Ask a run to stop; its next step stops the job, and its examples are free again."""
    database = gateway_of(request).database
    await training_runs.cancel_run(database, caller.tenant_id, as_uuid(run_id), actor=caller.key_id)
    story = await training_runs.show_run(database, caller.tenant_id, as_uuid(run_id))
    return json_response(asdict(story.run), 202)


@router.post(ONE + "/pause", status_code=202, responses=answers(RunView, 202))
async def pause(request: Request, caller: Trainer, run_id: str) -> Response:
    """Ask a run to wait, and its job with it, until it is resumed."""
    database = gateway_of(request).database
    await training_runs.pause_run(database, caller.tenant_id, as_uuid(run_id), actor=caller.key_id)
    story = await training_runs.show_run(database, caller.tenant_id, as_uuid(run_id))
    return json_response(asdict(story.run), 202)


@router.post(ONE + "/resume", status_code=202, responses=answers(RunView, 202))
async def resume(request: Request, caller: Trainer, run_id: str) -> Response:
    """Let a run that waits go on."""
    database = gateway_of(request).database
    await training_runs.resume_run(database, caller.tenant_id, as_uuid(run_id), actor=caller.key_id)
    story = await training_runs.show_run(database, caller.tenant_id, as_uuid(run_id))
    return json_response(asdict(story.run), 202)


@router.post(ONE + "/promote", responses=answers(AliasView))
async def promote(request: Request, caller: Trainer, run_id: str) -> Response:
    """Point the run's alias at its model, whatever the evaluation said."""
    gateway = gateway_of(request)
    alias, jobs = await model_aliases.promote_run(
        gateway.database,
        caller.tenant_id,
        as_uuid(run_id),
        default=gateway.settings.chat_model,
        actor=caller.key_id,
    )
    await gateway.bus.push(jobs)
    [now] = [
        one
        for one in await model_aliases.list_aliases(gateway.database, caller.tenant_id)
        if one["alias"] == alias
    ]
    return json_response(now)


@router.get("/v1/models", responses=answers(ModelsView))
async def models(request: Request, caller: Reader, query: Paging) -> Response:
    """Tuned models by name, and on every page what aliases mean; `chat` means the default model until somebody sets it."""
    gateway = gateway_of(request)
    aliases = await model_aliases.list_aliases(gateway.database, caller.tenant_id)
    if DEFAULT_ALIAS not in {one["alias"] for one in aliases}:
        unset = {"alias": DEFAULT_ALIAS, "model": gateway.settings.chat_model, "previous": None}
        aliases.insert(0, {**unset, "run_id": None, "changed_at": None})
    items = await model_aliases.list_models(gateway.database, caller.tenant_id)
    return json_response({**slice_page(items, query, "model"), "aliases": aliases})


@router.post(
    "/v1/models/{alias}/rollback",
    responses=answers(AliasView),
    openapi_extra=takes(RollbackBody, {"reason": "wrong tone"}),
)
async def rollback(request: Request, caller: Trainer, alias: str) -> Response:
    """Point an alias at the model that it meant before."""
    as_known_name(alias, "alias")
    gateway = gateway_of(request)
    empty = request.headers.get("content-length", "0") == "0"
    body = RollbackBody() if empty else await read_model(request, RollbackBody)
    _, jobs = await model_aliases.rollback_alias(
        gateway.database, caller.tenant_id, alias, reason=body.reason, actor=caller.key_id
    )
    await gateway.bus.push(jobs)
    [now] = [
        one
        for one in await model_aliases.list_aliases(gateway.database, caller.tenant_id)
        if one["alias"] == alias
    ]
    return json_response(now)

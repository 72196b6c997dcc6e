"""Examples come in here and become events; datasets are set up, looked at and reviewed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from infra import training_store
from infra.keys import Scope
from infra.training_store import FIRST, DatasetSettings
from producers.gateway.access import Allow, Caller
from producers.gateway.addresses import SOURCE, as_known_name, as_name, as_uuid
from producers.gateway.body import MAX_BATCH, check_model, read_json, read_model
from producers.gateway.idempotency import Remembered
from producers.gateway.modes import Offer, Refused
from producers.gateway.openapi import answers, takes
from producers.gateway.openapi_headers import asked
from producers.gateway.paging import PageQuery, Paging, decode_cursor, page, slice_page
from producers.gateway.publishing import make_event, publish_offer
from producers.gateway.resources import gateway_of
from producers.gateway.respond import json_response
from producers.gateway.shapes.events import PublishResults
from producers.gateway.shapes.training import (
    DatasetPage,
    DatasetView,
    ExampleBody,
    ExamplePage,
    ExamplesBody,
    ReviewBody,
    ReviewView,
)
from producers.naming import event_name
from schemas.envelope import Event
from schemas.errors import BadInput, PenstockError
from schemas.states import ExampleState

router = APIRouter(tags=["training"], route_class=Remembered)
Recorder = Annotated[Caller, Depends(Allow(Scope.PUBLISH, Scope.TRAIN))]
Trainer = Annotated[Caller, Depends(Allow(Scope.TRAIN))]
ONE = "/v1/datasets/{dataset}"
REVIEW = {"verdict": "approve", "example_ids": ["019a7c1e-5b7e-7c40-b3a1-2f6a1e1d0c55"]}
MOST = training_store.MOST - 1
"""Rows that the store gives at once, less the one that tells of the next page."""


@router.post(
    ONE + "/examples",
    status_code=202,
    responses=answers(PublishResults, 202),
    openapi_extra=takes(
        ExamplesBody,
        {
            "examples": [
                {
                    "messages": [
                        {"role": "user", "content": "Where does the Rhine rise?"},
                        {"role": "assistant", "content": "In the Swiss Alps."},
                    ]
                }
            ]
        },
    )
    | asked("Traceparent"),
)
async def record(request: Request, caller: Recorder, dataset: str) -> Response:
    """Record one example, or several as `examples`; each has its own result, and a repetition is a duplicate."""
    as_name(dataset, "dataset")
    raw = await read_json(request, MAX_BATCH)
    if not isinstance(raw, dict):
        raise BadInput("the body must be a JSON object", field="body")
    one = "messages" in raw
    given = [raw] if one else check_model(ExamplesBody, raw).examples
    results = await publish_offer(
        request, caller, Offer([_example(dataset, each) for each in given], batch=not one)
    )
    if one and results[0].error is not None:
        raise results[0].error
    return json_response({"results": [result.as_dict() for result in results]}, 202)


def _example(dataset: str, given: dict[str, Any]) -> Event | Refused:
    source = f"{SOURCE}/datasets/{dataset}"
    try:
        check_model(ExampleBody, given)
        data = {"dataset": dataset, **given}
        return make_event(
            "example.recorded", source, data, name=event_name("example.recorded", data, None), subject=dataset
        )
    except PenstockError as error:
        return Refused(source, "", error)


@router.put(ONE, responses=answers(DatasetView), openapi_extra=takes(DatasetSettings, {"threshold": 100}))
async def put(request: Request, caller: Trainer, dataset: str) -> Response:
    """Make a dataset, or change its settings; what is left out stays."""
    as_name(dataset, "dataset")
    gateway = gateway_of(request)
    changes = training_store.read_settings(await read_json(request))
    view, jobs = await training_store.set_dataset(
        gateway.database,
        caller.tenant_id,
        dataset,
        changes,
        base_model=gateway.settings.train_base_model,
        actor=caller.key_id,
    )
    await gateway.bus.push(jobs)
    return json_response(asdict(view))


@router.get(ONE, responses=answers(DatasetView))
async def show(request: Request, caller: Trainer, dataset: str) -> Response:
    """One dataset with its counts."""
    as_known_name(dataset, "dataset")
    found = await training_store.get_dataset(gateway_of(request).database, caller.tenant_id, dataset)
    return json_response(asdict(found))


@router.get("/v1/datasets", responses=answers(DatasetPage))
async def listing(request: Request, caller: Trainer, query: Paging) -> Response:
    """The datasets, by name."""
    found = await training_store.list_datasets(gateway_of(request).database, caller.tenant_id)
    return json_response(slice_page([asdict(one) for one in found], query, "dataset"))


class ExampleQuery(PageQuery):
    """Which examples to list."""

    status: ExampleState | None = None


@router.get(ONE + "/examples", responses=answers(ExamplePage))
async def examples(
    request: Request, caller: Trainer, dataset: str, query: Annotated[ExampleQuery, Query()]
) -> Response:
    """The examples of a dataset, oldest first."""
    as_known_name(dataset, "dataset")
    database = gateway_of(request).database
    await training_store.get_dataset(database, caller.tenant_id, dataset)
    place = decode_cursor(query.cursor, [str])
    limit = min(query.limit, MOST)
    rows = await training_store.list_examples(
        database,
        caller.tenant_id,
        dataset,
        status=None if query.status is None else str(query.status),
        after=FIRST if place is None else as_uuid(place[0]),
        limit=limit + 1,
    )
    items = [{**row, "example_id": str(row["example_id"])} for row in rows]
    return json_response(page(items, limit, ["example_id"]))


@router.post(ONE + "/examples/review", responses=answers(ReviewView), openapi_extra=takes(ReviewBody, REVIEW))
async def review(request: Request, caller: Trainer, dataset: str) -> Response:
    """Approve, quarantine or withdraw examples; approved ones count towards the threshold from now on."""
    as_known_name(dataset, "dataset")
    gateway = gateway_of(request)
    body = await read_model(request, ReviewBody)
    await training_store.get_dataset(gateway.database, caller.tenant_id, dataset)
    changed, jobs = await training_store.review(
        gateway.database,
        caller.tenant_id,
        dataset,
        [as_uuid(one) for one in body.example_ids],
        body.verdict,
        actor=caller.key_id,
    )
    await gateway.bus.push(jobs)
    return json_response({"changed": changed})

"""Questions come in here and become events; answers go out: waited for, streamed while they are written, or fetched."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from infra.answers import cancel_answer, read_answer
from infra.database import queries
from infra.filters import compile_filter
from infra.keys import Scope
from infra.response_schema import check_schema
from producers.gateway.access import Allow, Caller
from producers.gateway.addresses import SOURCE, as_known_name, as_uuid
from producers.gateway.body import read_model
from producers.gateway.openapi import answers, streams, takes
from producers.gateway.openapi_headers import asked
from producers.gateway.publishing import enter, make_event
from producers.gateway.resources import gateway_of
from producers.gateway.respond import json_response
from producers.gateway.shapes.events import EventAccepted
from producers.gateway.shapes.questions import FeedbackBody, QueryAccepted, QueryBody, QueryView
from producers.gateway.streaming import stream_answer, wants_stream
from schemas.errors import NotFound

router = APIRouter(tags=["questions"])
Asker = Annotated[Caller, Depends(Allow(Scope.QUERY))]
Rater = Annotated[Caller, Depends(Allow(Scope.FEEDBACK))]
MAX_WAIT = 60.0
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)
_EXAMPLE = {"question": "How many days of holiday are there?"}


@router.post(
    "/v1/collections/{collection}/queries",
    status_code=202,
    responses=answers(QueryAccepted, 202) | streams(QueryView),
    openapi_extra=takes(QueryBody, _EXAMPLE) | asked("Prefer", "Traceparent"),
)
async def ask(request: Request, caller: Asker, collection: str) -> Response:
    """Ask a question.

    202 with its id at once; 200 with the answer when `Prefer: wait=N` (seconds, at most 60) was sent and it came in
    time; a stream of server-sent events when `Accept: text/event-stream` was sent.
    """
    gateway = gateway_of(request)
    as_known_name(collection, "collection")
    body = await read_model(request, QueryBody)
    compile_filter(body.filter)
    if body.response_schema is not None:
        check_schema(body.response_schema)
    streamed = wants_stream(request)
    data = body.model_dump(exclude_unset=True, mode="json")
    data = {name: value for name, value in data.items() if value is not None}
    event = make_event(
        "query.received",
        f"{SOURCE}/queries",
        {**data, "collections": [collection], **({"stream": True} if streamed else {})},
    )
    async with gateway.database.transaction(caller.tenant_id, readonly=True) as connection:
        if not await connection.fetch(queries("gateway_documents").known, caller.tenant_id, [collection]):
            raise NotFound("there is no such collection")
    query_id = await enter(request, caller, event)
    if streamed:
        return stream_answer(gateway, caller.tenant_id, query_id, after=None)
    seconds = preferred_wait(request.headers.getlist("prefer"))
    headers = {"location": f"/v1/queries/{query_id}"}
    if seconds is not None:
        headers["preference-applied"] = f"wait={seconds:g}"
        if await gateway.ends.wait(caller.tenant_id, query_id, seconds):
            answer = await read_answer(gateway.database, caller.tenant_id, query_id)
            return json_response(answer, 200, headers)
    return json_response({"id": query_id, "event_id": query_id}, 202, headers)


def preferred_wait(values: list[str]) -> float | None:
    """How long a caller would wait (RFC 7240), at most a minute; None when it did not say."""
    for value in values:
        if found := _WAIT.search(value):
            return min(float(found[1]), MAX_WAIT)
    return None


@router.get(
    "/v1/queries/{query_id}",
    responses=answers(QueryView) | streams(QueryView),
    openapi_extra=asked("LastEventId"),
)
async def show(request: Request, caller: Asker, query_id: str) -> Response:
    """A question and its answer; with `Accept: text/event-stream` the stream, resumed after `Last-Event-ID`."""
    gateway = gateway_of(request)
    found = await read_answer(gateway.database, caller.tenant_id, as_uuid(query_id))
    if wants_stream(request):
        after = request.headers.get("last-event-id")
        return stream_answer(gateway, caller.tenant_id, as_uuid(query_id), after=after)
    return json_response(found)


@router.delete("/v1/queries/{query_id}", responses=answers(QueryView))
async def withdraw(request: Request, caller: Asker, query_id: str) -> Response:
    """Withdraw a question: it becomes failed (`cancelled`), and a model call under way is stopped."""
    gateway = gateway_of(request)
    return json_response(
        await cancel_answer(gateway.database, gateway.redis, caller.tenant_id, as_uuid(query_id))
    )


@router.post(
    "/v1/queries/{query_id}/feedback",
    status_code=202,
    responses=answers(EventAccepted, 202),
    openapi_extra=takes(FeedbackBody, {"rating": 1}) | asked("Traceparent"),
)
async def feedback(request: Request, caller: Rater, query_id: str) -> Response:
    """Rate or correct an answer; it becomes a training example once it is approved."""
    gateway = gateway_of(request)
    body = await read_model(request, FeedbackBody)
    await read_answer(gateway.database, caller.tenant_id, as_uuid(query_id))
    data = {"query_id": str(as_uuid(query_id)), **body.model_dump(exclude_none=True)}
    event = make_event("feedback.received", f"{SOURCE}/feedback", data, subject=str(as_uuid(query_id)))
    event_id = await enter(request, caller, event)
    return json_response({"event_id": event_id}, 202, {"location": f"/v1/events/{event_id}"})

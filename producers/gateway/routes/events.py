"""Events come in here in any mode of CloudEvents and go to the bus; what became of them is read from the ledger."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from infra.database import queries
from infra.keys import Scope
from producers.gateway.access import Allow, Caller
from producers.gateway.addresses import as_uuid
from producers.gateway.modes import read_offer
from producers.gateway.openapi import EVENT_BODY, answers
from producers.gateway.paging import PageQuery, decode_cursor, page
from producers.gateway.problems import problem_of, request_id_of
from producers.gateway.publishing import publish_offer
from producers.gateway.resources import Gateway, gateway_of
from producers.gateway.respond import json_response
from producers.gateway.shapes.events import EventPage, EventView, PublishResults
from schemas.errors import BadInput, NotFound
from schemas.registry import EVENT_TYPES
from schemas.states import EventState

router = APIRouter(tags=["events"])
PUBLISHER = Allow(Scope.PUBLISH, Scope.QUERY, Scope.FEEDBACK, Scope.TRAIN)
Anyone = Annotated[Caller, Depends(Allow())]


@router.post("/v1/events", status_code=202, responses=answers(PublishResults, 202), openapi_extra=EVENT_BODY)
async def publish(request: Request) -> Response:
    """Publish one event or a batch; in a batch each item has its own result."""
    # Called and not declared: resolving a dependency costs a tenth of a single event.
    caller = await PUBLISHER(request)
    offer = await read_offer(request)
    results = await publish_offer(request, caller, offer)
    shown = [result.as_dict() for result in results]
    if not offer.batch and results[0].error is not None:
        return problem_of(results[0].error, request_id_of(request), results=shown)
    headers = {} if offer.batch else {"location": f"/v1/events/{results[0].event_id}"}
    return json_response({"results": shown}, 202, headers)


@router.get("/v1/events/{event_id}", responses=answers(EventView))
async def show(request: Request, caller: Anyone, event_id: str) -> Response:
    """Where an event is, what happened to it, and what it led to; never its data."""
    return json_response(await _view(gateway_of(request), caller, as_uuid(event_id)))


class EventQuery(PageQuery):
    """One event by the publisher's own name, or which events to list."""

    source: Annotated[str | None, Field(max_length=1024)] = None
    id: Annotated[str | None, Field(max_length=1024)] = None
    status: EventState | None = None
    type: Annotated[str | None, Field(max_length=100)] = None


@router.get("/v1/events", responses=answers(EventPage | EventView))
async def listing(request: Request, caller: Anyone, query: Annotated[EventQuery, Query()]) -> Response:
    """One event by the publisher's own name for it (`source` and `id`), or a page of events, newest first."""
    if query.source is not None or query.id is not None:
        return json_response(await _find(gateway_of(request), caller, query.source, query.id))
    if query.type is not None and query.type not in EVENT_TYPES:
        raise BadInput("there is no such event type", field="type")
    place = decode_cursor(query.cursor, [str])
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        rows = await connection.fetch(
            _page_query(query.status),
            caller.tenant_id,
            query.type,
            None if query.status is None else str(query.status),
            None if place is None else as_uuid(place[0]),
            query.limit + 1,
        )
    items = [dict(row) | {"event_id": str(row["event_id"])} for row in rows]
    return json_response(page(items, query.limit, ["event_id"]))


async def _find(gateway: Gateway, caller: Caller, source: str | None, name: str | None) -> dict[str, Any]:
    if source is None or name is None:
        missing = "source" if source is None else "id"
        raise BadInput("source and id name an event together", field=missing, fix="give both")
    async with gateway.database.transaction(caller.tenant_id, readonly=True) as connection:
        found = await connection.fetchval(queries("gateway_events").find, caller.tenant_id, source, name)
    if found is None:
        raise NotFound("there is no such event")
    return await _view(gateway, caller, found)


def _page_query(status: EventState | None) -> str:
    sql = queries("gateway_events")
    if status is None or status is EventState.DONE:
        return sql.page
    return sql.page_dead if status is EventState.DEAD else sql.page_unfinished


async def _view(gateway: Gateway, caller: Caller, event_id: UUID) -> dict[str, Any]:
    sql = queries("gateway_events")
    async with gateway.database.transaction(caller.tenant_id, readonly=True) as connection:
        row = await connection.fetchrow(sql.show, caller.tenant_id, event_id)
        if row is None:
            raise NotFound("there is no such event")
        caused = await connection.fetch(sql.caused, caller.tenant_id, event_id)
    shown = dict(row)
    story = tell(shown)
    for name in ("story", "dead_at", "major"):
        del shown[name]
    return shown | {"caused": [one["event_id"] for one in caused], "story": story}


def tell(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What happened to an event, in order: its times, and the notes that workers left."""

    def at(name: str) -> str:
        return str(row[name].isoformat(timespec="milliseconds"))

    said = [note for note in row["story"] if isinstance(note, dict)]
    lines: list[dict[str, Any]] = [{"at": at("accepted_at"), "what": "accepted", "queue": row["queue"]}]
    if row["started_at"] is not None:
        # Attempts are counted when they end: only the one under way is not among them.
        attempt = row["attempts"] + (row["status"] == EventState.RUNNING)
        lines.append({"at": at("started_at"), "what": "running", "attempt": attempt})
    lines += said
    if row["status"] == EventState.DONE and row["finished_at"] is not None:
        lines.append({"at": at("finished_at"), "what": "done"})
    if row["status"] == EventState.DEAD and not any(note.get("what") == "dead" for note in said):
        lines.append({"at": at("finished_at"), "what": "dead"})
    lines.sort(key=lambda line: str(line.get("at", "")))
    if row["due_at"] is not None:
        lines.append({"at": at("due_at"), "what": "due"})
    return lines

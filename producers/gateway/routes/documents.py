"""One document comes in here under its address and becomes an event; what is served of it is read from its row."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from infra.database import Connection, queries
from infra.keys import Scope
from producers.gateway.access import Allow, Caller
from producers.gateway.addresses import as_document_id, as_known_name, as_name, document_path, document_source
from producers.gateway.body import MAX_DOCUMENT, check_model, read_json
from producers.gateway.etags import check_preconditions, etag, is_listed
from producers.gateway.openapi import answers, takes
from producers.gateway.openapi_headers import asked
from producers.gateway.paging import PageQuery, decode_cursor, page
from producers.gateway.publishing import enter, make_event
from producers.gateway.resources import gateway_of
from producers.gateway.respond import json_response
from producers.gateway.shapes.documents import DocumentAccepted, DocumentBody, DocumentPage, DocumentView
from schemas.envelope import Event
from schemas.errors import BadInput, NotFound
from schemas.states import DocumentState, EventState

router = APIRouter(tags=["documents"])
Writer = Annotated[Caller, Depends(Allow(Scope.PUBLISH))]
Reader = Annotated[Caller, Depends(Allow(Scope.PUBLISH, Scope.QUERY))]
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "As the caller knows it"}}
CONDITIONS = asked("IfMatch", "IfNoneMatch", "Traceparent")
ADDRESS = "/v1/collections/{collection}/documents/{document_id:anything}"


@router.put(
    ADDRESS,
    status_code=202,
    responses=answers(DocumentAccepted, 202),
    openapi_extra=takes(
        DocumentBody, {"content": "# Holidays\n\nThirty days.", "media_type": "text/markdown"}
    )
    | CONDITIONS,
)
async def put(request: Request, caller: Writer, collection: str, document_id: str) -> Response:
    """Add a document or replace it; the newest version wins. `If-Match` and `If-None-Match` are looked at."""
    as_name(collection, "collection")
    as_document_id(document_id)
    await _check(request, caller, collection, document_id)
    raw = await read_json(request, MAX_DOCUMENT)
    if not isinstance(raw, dict):
        raise BadInput("the body must be a JSON object", field="body")
    check_model(DocumentBody, raw)
    given = {name: value for name, value in raw.items() if name != "sequence" and value is not None}
    event = make_event(
        "document.added",
        document_source(collection, document_id),
        {"collection": collection, "document_id": document_id, **given},
        subject=document_id,
        sequence=raw.get("sequence"),
    )
    return await _publish(request, caller, event, collection, document_id)


@router.delete(ADDRESS, status_code=202, responses=answers(DocumentAccepted, 202), openapi_extra=CONDITIONS)
async def delete(
    request: Request,
    caller: Writer,
    collection: str,
    document_id: str,
    sequence: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
) -> Response:
    """Delete a document. A delete is a version like any other, so it is accepted whatever is there now."""
    as_known_name(collection, "collection")
    as_document_id(document_id)
    await _check(request, caller, collection, document_id)
    event = make_event(
        "document.deleted",
        document_source(collection, document_id),
        {"collection": collection, "document_id": document_id},
        subject=document_id,
        sequence=sequence,
    )
    return await _publish(request, caller, event, collection, document_id)


@router.get(ADDRESS, responses=answers(DocumentView) | NOT_MODIFIED, openapi_extra=asked("IfNoneMatch"))
async def show(request: Request, caller: Reader, collection: str, document_id: str) -> Response:
    """The newest version that was decided; `pending` while the first one waits.

    The `ETag` changes whenever anything that is shown changes; with `If-None-Match` an unchanged one is 304.
    """
    as_known_name(collection, "collection")
    shown = await _look(request, caller, collection, document_id)
    if shown is None:
        raise NotFound("there is no such document")
    headers = {"etag": etag(shown)}
    known = request.headers.getlist("if-none-match")
    if known and is_listed(known, headers["etag"], weak=True):
        return Response(status_code=304, headers=headers)
    return json_response(shown, 200, headers)


async def _check(request: Request, caller: Caller, collection: str, document_id: str) -> None:
    """Hold a change against its sender's preconditions, if it has any."""
    if_match, if_none_match = (
        request.headers.getlist("if-match"),
        request.headers.getlist("if-none-match"),
    )
    if if_match or if_none_match:
        shown = await _look(request, caller, collection, document_id)
        if shown is not None and shown["status"] == DocumentState.PURGED:
            shown = None
        check_preconditions(if_match, if_none_match, None if shown is None else etag(shown))


async def _look(request: Request, caller: Caller, collection: str, document_id: str) -> dict[str, Any] | None:
    """What is to be shown of a document; None when there is none."""
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        row = await connection.fetchrow(
            queries("gateway_documents").show, caller.tenant_id, collection, document_id
        )
        if row is not None:
            return dict(row)
        return await _pending(connection, caller.tenant_id, collection, document_id)


async def _pending(
    connection: Connection, tenant: str, collection: str, document_id: str
) -> dict[str, Any] | None:
    """A document that was put under its address and that no worker has decided yet."""
    source = document_source(collection, document_id)
    row = await connection.fetchrow(queries("gateway_events").newest_of, tenant, source)
    if row is None or row["type"] != "document.added" or row["status"] == EventState.DONE:
        return None
    dead = row["status"] == EventState.DEAD
    return {
        "id": document_id,
        "collection": collection,
        "status": DocumentState.FAILED if dead else DocumentState.PENDING,
        "sequence": row["sequence"] if row["sequence"] is not None else row["accept_no"],
        "served_sequence": None,
        "chunks": 0,
        "tokens": 0,
        "title": row["title"],
        "metadata": row["metadata"] or {},
        "error": row["error"] if dead else None,
        "indexed_at": None,
        "event_id": row["event_id"],
    }


class DocumentQuery(PageQuery):
    """Which documents to list."""

    status: DocumentState | None = None


@router.get("/v1/collections/{collection}/documents", responses=answers(DocumentPage))
async def listing(
    request: Request, caller: Reader, collection: str, query: Annotated[DocumentQuery, Query()]
) -> Response:
    """The documents of a collection, by id."""
    as_known_name(collection, "collection")
    sql = queries("gateway_documents")
    place = decode_cursor(query.cursor, [str])
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        if not await connection.fetch(sql.known, caller.tenant_id, [collection]):
            raise NotFound("there is no such collection")
        rows = await connection.fetch(
            sql.page,
            caller.tenant_id,
            collection,
            None if place is None else place[0],
            None if query.status is None else str(query.status),
            query.limit + 1,
        )
    return json_response(page([dict(row) for row in rows], query.limit, ["id"]))


async def _publish(
    request: Request, caller: Caller, event: Event, collection: str, document_id: str
) -> Response:
    event_id = await enter(request, caller, event)
    headers = {
        "location": f"/v1/events/{event_id}",
        "content-location": document_path(collection, document_id),
    }
    return json_response({"event_id": event_id, "document_id": document_id}, 202, headers)

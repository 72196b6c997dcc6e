"""Collections are set up and looked at here; documents make them too, with the defaults, when they come first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from infra.collections import drop_collection, ensure_collection
from infra.database import Connection, queries
from infra.keys import Scope
from producers.gateway.access import Allow, Caller
from producers.gateway.addresses import as_known_name, as_name
from producers.gateway.body import read_model
from producers.gateway.openapi import answers, takes
from producers.gateway.paging import Paging, decode_cursor, page
from producers.gateway.resources import gateway_of
from producers.gateway.respond import json_response, no_content
from producers.gateway.shapes.documents import CollectionBody, CollectionPage, CollectionView
from schemas.errors import BadInput, Conflict, NotFound

router = APIRouter(tags=["collections"])
Admin = Annotated[Caller, Depends(Allow(Scope.ADMIN))]
Reader = Annotated[Caller, Depends(Allow(Scope.PUBLISH, Scope.QUERY))]
ONE = "/v1/collections/{collection}"


@router.put(
    ONE, responses=answers(CollectionView), openapi_extra=takes(CollectionBody, {"language": "german"})
)
async def put(request: Request, caller: Admin, collection: str) -> Response:
    """Make a collection, or change its settings; a new way of cutting applies to documents that come later."""
    as_name(collection, "collection")
    body = await read_model(request, CollectionBody)
    gateway = gateway_of(request)
    given = body.model_dump(exclude_unset=True, exclude={"language"})
    async with gateway.database.transaction(caller.tenant_id) as connection:
        collection_id = await ensure_collection(connection, caller.tenant_id, collection, gateway.settings)
        if body.language is not None:
            await _check_language(connection, caller.tenant_id, collection_id, collection, body.language)
        await connection.execute(
            queries("gateway_documents").set_collection, caller.tenant_id, collection_id, given, body.language
        )
        return json_response(await _show(connection, caller.tenant_id, collection))


async def _check_language(
    connection: Connection, tenant: str, collection_id: int, name: str, language: str
) -> None:
    sql = queries("gateway_documents")
    if not await connection.fetchval(sql.language_known, language):
        raise BadInput(
            "the database knows no such language", field="language", fix="use simple, english, german …"
        )
    row = await connection.fetchrow(sql.collection, tenant, name)
    assert row is not None
    if row["language"] != language and await connection.fetchval(sql.has_documents, tenant, collection_id):
        raise Conflict(
            "the language can be chosen only while the collection is empty",
            field="language",
            fix="make another collection and publish into it",
        )


@router.get(ONE, responses=answers(CollectionView))
async def show(request: Request, caller: Reader, collection: str) -> Response:
    """One collection."""
    as_known_name(collection, "collection")
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        return json_response(await _show(connection, caller.tenant_id, collection))


@router.delete(ONE, status_code=204, responses=answers(None, 204))
async def drop(request: Request, caller: Admin, collection: str) -> Response:
    """Drop a collection with its documents. What was published before stays gone; what comes later makes it anew."""
    as_known_name(collection, "collection")
    async with gateway_of(request).database.transaction(caller.tenant_id) as connection:
        await drop_collection(connection, caller.tenant_id, collection, actor=f"key:{caller.key_id}")
    return no_content()


@router.get("/v1/collections", responses=answers(CollectionPage))
async def listing(request: Request, caller: Reader, query: Paging) -> Response:
    """The collections, by name."""
    place = decode_cursor(query.cursor, [str])
    after = None if place is None else place[0]
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        rows = await connection.fetch(
            queries("gateway_documents").collections, caller.tenant_id, after, query.limit + 1
        )
        items = await _with_counts(connection, caller.tenant_id, rows)
    return json_response(page(items, query.limit, ["name"]))


async def _show(connection: Connection, tenant: str, name: str) -> dict[str, Any]:
    row = await connection.fetchrow(queries("gateway_documents").collection, tenant, name)
    if row is None:
        raise NotFound("there is no such collection")
    [shown] = await _with_counts(connection, tenant, [row])
    return shown


async def _with_counts(connection: Connection, tenant: str, rows: Sequence[Any]) -> list[dict[str, Any]]:
    shown = {row["collection_id"]: {**row, "documents": {}, "chunks": 0} for row in rows}
    for one in await connection.fetch(queries("gateway_documents").counts, tenant, list(shown)):
        held = shown[one["collection_id"]]
        held["documents"][one["status"]] = one["documents"]
        held["chunks"] += int(one["chunks"] or 0)
    return [{name: held[name] for name in held if name != "collection_id"} for held in shown.values()]

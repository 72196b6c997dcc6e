"""A question comes in here and leaves as passages, without a paid answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from infra.keys import Scope
from producers.gateway.access import Allow, Caller
from producers.gateway.addresses import as_known_name
from producers.gateway.body import read_model
from producers.gateway.openapi import answers, takes
from producers.gateway.resources import gateway_of
from producers.gateway.respond import json_response
from producers.gateway.shapes.questions import SearchBody, SearchView

router = APIRouter(tags=["questions"])
Asker = Annotated[Caller, Depends(Allow(Scope.QUERY))]


@router.post(
    "/v1/collections/{collection}/search",
    responses=answers(SearchView),
    openapi_extra=takes(SearchBody, {"question": "How many days of holiday are there?", "top_k": 5}),
)
async def search(request: Request, caller: Asker, collection: str) -> Response:
    """Find the passages that fit a question best."""
    as_known_name(collection, "collection")
    body = await read_model(request, SearchBody)
    retriever = gateway_of(request).need_retriever()
    known = await retriever.look_up(caller.tenant_id, [collection])
    found = await retriever.find(
        caller.tenant_id, known, body.question, filter=body.filter, top_k=body.top_k, mode=body.mode
    )
    return json_response(
        {"results": [one.as_dict() for one in found.passages], "timings_ms": dict(found.timings_ms)}
    )

"""Prompt templates come in here and are kept in numbered versions; questions use the newest."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from infra.database import queries
from infra.keys import Scope
from infra.templates import Template, TemplateBody, put_template, read_template
from producers.gateway.access import Allow, Caller
from producers.gateway.addresses import as_known_name, as_name
from producers.gateway.body import read_json
from producers.gateway.openapi import answers, takes
from producers.gateway.paging import Paging, decode_cursor, page
from producers.gateway.resources import gateway_of
from producers.gateway.respond import json_response
from producers.gateway.shapes.questions import TemplatePage, TemplateView

router = APIRouter(tags=["templates"])
Admin = Annotated[Caller, Depends(Allow(Scope.ADMIN))]
Reader = Annotated[Caller, Depends(Allow(Scope.QUERY, Scope.ADMIN))]
ONE = "/v1/templates/{template}"


@router.put(
    ONE,
    responses=answers(TemplateView),
    openapi_extra=takes(TemplateBody, {"system": "Answer in one sentence."}),
)
async def put(request: Request, caller: Admin, template: str) -> Response:
    """Keep a new version of a template; the same text again makes none."""
    as_name(template, "template")
    body = await read_json(request)
    kept = await put_template(gateway_of(request).database, caller.tenant_id, template, body)
    return json_response(_shown(kept))


@router.get(ONE, responses=answers(TemplateView))
async def show(request: Request, caller: Reader, template: str) -> Response:
    """The newest version; `default` is there before anybody has put it."""
    as_known_name(template, "template")
    return json_response(
        _shown(await read_template(gateway_of(request).database, caller.tenant_id, template))
    )


@router.get("/v1/templates", responses=answers(TemplatePage))
async def listing(request: Request, caller: Reader, query: Paging) -> Response:
    """The newest version of each template, by name."""
    place = decode_cursor(query.cursor, [str])
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        rows = await connection.fetch(
            queries("gateway_settings").templates,
            caller.tenant_id,
            None if place is None else place[0],
            query.limit + 1,
        )
    return json_response(page([dict(row) for row in rows], query.limit, ["name"]))


def _shown(template: Template) -> dict[str, object]:
    return {"name": template.name, "version": template.version, "body": template.body.model_dump()}

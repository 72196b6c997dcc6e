"""A tenant asks here that something of its own be forgotten for good."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from infra.erasure import Target, erase
from infra.keys import Scope
from producers.gateway.access import Allow, Caller
from producers.gateway.body import read_model
from producers.gateway.idempotency import Remembered
from producers.gateway.openapi import answers, takes
from producers.gateway.resources import gateway_of
from producers.gateway.respond import json_response
from producers.gateway.shapes.erasures import ErasureBody, ErasureView
from schemas.errors import BadInput

router = APIRouter(tags=["erasure"], route_class=Remembered)
Admin = Annotated[Caller, Depends(Allow(Scope.ADMIN))]


@router.post(
    "/v1/erasures",
    responses=answers(ErasureView),
    openapi_extra=takes(ErasureBody, {"kind": "subject", "subjectref": "person-7", "dry_run": True}),
)
async def forget(request: Request, caller: Admin) -> Response:
    """Forget something for good; asking again is safe. To erase all, name your own tenant: its keys end with it."""
    body = await read_model(request, ErasureBody)
    gateway = gateway_of(request)
    done = await erase(
        gateway.database,
        gateway.redis,
        caller.tenant_id,
        _target(body, caller),
        dry_run=body.dry_run,
        actor=f"key:{caller.key_id}",
    )
    return json_response(done.as_dict())


def _target(body: ErasureBody, caller: Caller) -> Target:
    if body.kind == "tenant" and body.tenant != caller.tenant_id:
        raise BadInput("this is not the key's own tenant", field="tenant")
    name = body.document_id or body.query_id or body.subjectref or body.tenant
    assert name is not None
    return Target(body.kind, name, body.collection or "")

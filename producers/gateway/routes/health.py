"""What anybody may ask without a key: whether the process answers, and which events there are."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from producers.gateway import asyncapi
from producers.gateway.respond import json_response

router = APIRouter(tags=["health"])


@router.get("/healthz", responses={200: {"description": "The gateway answers."}})
async def healthz() -> Response:
    """Say ok."""
    return json_response({"status": "ok"})


@router.get("/asyncapi.json", include_in_schema=False)
async def events(request: Request) -> Response:
    """Every event type that comes in or goes out, as an AsyncAPI 3 document."""
    return json_response(asyncapi.document(request.app.version))

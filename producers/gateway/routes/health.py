"""The public health check: that the process answers, and nothing else about it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from producers.gateway.respond import json_response

router = APIRouter(tags=["health"])


@router.get("/healthz", responses={200: {"description": "The gateway answers."}})
async def healthz() -> Response:
    """Say ok."""
    return json_response({"status": "ok"})

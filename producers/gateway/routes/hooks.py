"""Webhooks of the model provider come in here; each wakes the look at its job and is answered at once."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from infra import provider_hooks
from producers.gateway.body import read_bytes
from producers.gateway.openapi import answers
from producers.gateway.resources import gateway_of
from producers.gateway.respond import no_content
from schemas.errors import NotFound
from schemas.strict_json import parse_json

router = APIRouter(tags=["hooks"])
MAX_HOOK = 64 * 1024


@router.post(
    "/v1/hooks/openai", status_code=204, responses=answers(None, 204), openapi_extra={"security": []}
)
async def openai(request: Request) -> Response:
    """Take a signed webhook of the model provider; unknown where no secret is set.

    It carries no API key: its signature is all that lets it in. A repetition, and an event about something else than
    a job of ours, is taken and changes nothing.
    """
    gateway = gateway_of(request)
    secret = gateway.settings.trainer_webhook_secret
    if secret is None:
        raise NotFound("there is no such address")
    body = await read_bytes(request, MAX_HOOK)
    webhook_id = provider_hooks.check_signature(secret.get_secret_value(), request.headers, body, time.time())
    job_id = provider_hooks.job_of(parse_json(body))
    if job_id is not None:
        await provider_hooks.wake(gateway.database, gateway.redis, webhook_id, job_id)
    return no_content()

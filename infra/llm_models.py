"""A model's name comes in and what its provider says of the model goes out: whether it exists, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import orjson

from infra.llm_errors import translated
from schemas.errors import CallFailed, Refused

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the provider lists it.

    Attributes:
        shutdown_date: the day on which the provider ends it, if announced.
    """

    name: str
    owned_by: str | None
    shutdown_date: date | None


async def describe(client: AsyncOpenAI, name: str) -> ModelInfo | None:
    """What the provider says of a model; None when it does not exist or is not ours to use.

    A read without a price, so the SDK may try it once more.
    """
    try:
        with translated():
            reply = await client.with_options(max_retries=1).models.with_raw_response.retrieve(name)
            return _model_info(name, orjson.loads(reply.http_response.content))
    except Refused as error:
        if error.provider_status in {403, 404}:
            return None
        raise


def _model_info(name: str, body: Any) -> ModelInfo:
    if not isinstance(body, dict):
        raise CallFailed("the model API's description of a model is not an object")
    owner, ends = body.get("owned_by"), body.get("shutdown_date")
    return ModelInfo(
        name=name,
        owned_by=owner if isinstance(owner, str) else None,
        shutdown_date=date.fromisoformat(ends[:10]) if isinstance(ends, str) and ends else None,
    )

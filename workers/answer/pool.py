"""The composition root opens the answer wing here and gets its handlers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import asynccontextmanager

from schemas.errors import Misconfigured
from workers.answer.handler import Answerer
from workers.handling import HandlersIterator, HandlerSpec, Resources

MAX_ATTEMPTS = 4
"""Charged attempts: whoever asks a question seldom waits for hours."""


@asynccontextmanager
async def open_handlers(resources: Resources) -> HandlersIterator:
    """Open the wing.

    Raises:
        Misconfigured: the pool has no model API.
    """
    if resources.models is None:
        raise Misconfigured(
            "the answer pool needs a model API", field="OPENAI_API_KEY", fix="set OPENAI_API_KEY"
        )
    answerer = Answerer(resources, resources.models)
    handlers: Mapping[str, HandlerSpec] = {
        "query.received": HandlerSpec(answerer.handle, on_dead=answerer.on_dead, max_attempts=MAX_ATTEMPTS)
    }
    try:
        yield handlers
    finally:
        await answerer.aclose()

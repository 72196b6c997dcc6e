"""Messages go to a model here, past every cache and through the budget; its reply comes back with the time that it took."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from infra.llm import ModelApi, Priority, Reply
from schemas.errors import Refused, Unavailable, Uncharged
from workers.handling import Resources
from workers.train.examples import estimate_tokens, text_of_message

EMBED_AT_ONCE = 100
LONGEST_TEXT = 16_000
"""Characters: below the token limit of every embedding model."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Timed:
    """A reply and how long it took."""

    reply: Reply
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Desk:
    """Asks models on a tenant's account."""

    resources: Resources
    models: ModelApi
    tenant_id: str

    async def ask(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        expect: int,
        purpose: Literal["chat", "judge"] = "chat",
    ) -> Timed:
        """One paid call.

        Args:
            model: whom.
            messages: what.
            expect: tokens that will come back, at most.
            purpose: what it is booked for.

        Raises:
            PenstockError: see `infra.llm_errors`; what may have been paid for is booked as waste.
        """
        budget = self.resources.budget
        asked = sum(estimate_tokens(text_of_message(message)) + 4 for message in messages)
        reservation = await budget.reserve(self.tenant_id, purpose, model, asked, expect)
        began = time.monotonic()
        try:
            reply = await self.models.chat(messages, model=model, priority=Priority.BACKGROUND)
        except (Refused, Uncharged, Unavailable):
            await budget.release(reservation)
            raise
        except BaseException:
            await budget.waste(reservation)
            raise
        await budget.settle(reservation, reply.tokens_in, reply.tokens_out)
        return Timed(reply, (time.monotonic() - began) * 1000)

    async def embed(self, texts: Sequence[str]) -> dict[str, Floats]:
        """Texts, none of them empty, with their vectors of unit length."""
        found: dict[str, Floats] = {}
        for start in range(0, len(texts), EMBED_AT_ONCE):
            some = texts[start : start + EMBED_AT_ONCE]
            found.update(zip(some, await self._embed([text[:LONGEST_TEXT] for text in some]), strict=True))
        return found

    async def _embed(self, texts: Sequence[str]) -> Floats:
        settings, budget = self.resources.settings, self.resources.budget
        reservation = await budget.reserve(
            self.tenant_id, "embed", settings.embed_model, sum(estimate_tokens(text) for text in texts)
        )
        try:
            embedded = await self.models.embed(
                texts,
                model=settings.embed_model,
                dimensions=settings.embed_dimensions,
                priority=Priority.BACKGROUND,
            )
        except (Refused, Uncharged, Unavailable):
            await budget.release(reservation)
            raise
        except BaseException:
            await budget.waste(reservation)
            raise
        await budget.settle(reservation, embedded.tokens)
        return embedded.vectors

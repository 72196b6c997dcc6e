"""A prompt goes to the model here; its words go on to the answer's stream, and the whole of them to be verified.

When a tuned model is gone or failing, its base model takes over within the same attempt of the event: followers are
told to start over. Whoever cancels `generate` (the deadline, a withdrawal) ends the call.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import structlog

from infra.aliases import Aliases, Resolved
from infra.answer_stream import AnswerWriter
from infra.budget import Budget, Reservation
from infra.llm import Delta, ModelApi
from schemas.errors import CallFailed, PenstockError, Refused, Unavailable
from workers.answer.prompt import Prompt
from workers.answer.sanitize import Sanitizer, addresses_in

REST = 0.03
"""Seconds between two writes to the stream, for which words are left to gather; the first one is written at once."""
NOT_THE_MODEL = frozenset({"context_length_exceeded", "content_filter"})
"""Refusals that another model would repeat."""
_log = structlog.get_logger("penstock.answer")


@dataclass(frozen=True, slots=True)
class Call:
    """How to call the model.

    Attributes:
        streamed: whether tokens are written to the answer's stream.
    """

    tenant_id: str
    resolved: Resolved
    max_tokens: int
    temperature: float | None
    streamed: bool
    response_format: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model wrote.

    Attributes:
        model: the one that answered.
        instead_of: the tuned model that could not.
        first_token_ms: from the call to the first words.
    """

    text: str
    model: str
    tokens_in: int
    tokens_out: int
    finish_reason: str
    first_token_ms: float
    instead_of: str | None = None


@dataclass(slots=True)
class _Progress:
    """What has come of a reply so far."""

    parts: list[str] = field(default_factory=list)
    waiting: str = ""
    first_at: float | None = None


class Generator:
    """Calls models for answers."""

    def __init__(self, models: ModelApi, budget: Budget, aliases: Aliases) -> None:
        """Use an open model API."""
        self._models = models
        self._budget = budget
        self._aliases = aliases

    async def generate(self, call: Call, prompt: Prompt, writer: AnswerWriter) -> Generated:
        """Have a prompt answered, by the alias's model or its base.

        Raises:
            PenstockError: no model answered.
        """
        resolved = call.resolved
        try:
            return await self._one(resolved.model, call, prompt, writer)
        except (Refused, Unavailable, CallFailed) as error:
            if not resolved.tuned or (isinstance(error, Refused) and error.provider_code in NOT_THE_MODEL):
                raise
            self._aliases.avoid(resolved.model)
            _log.warning(
                "answer.fell_back",
                model=resolved.model,
                base=resolved.base,
                error=error.code,
                reason=error.message,
            )
        await writer.begin()
        return await self._one(resolved.base, call, prompt, writer, instead_of=resolved.model)

    async def _one(
        self, model: str, call: Call, prompt: Prompt, writer: AnswerWriter, instead_of: str | None = None
    ) -> Generated:
        reservation = await self._budget.reserve(
            call.tenant_id, "chat", model, prompt.tokens, call.max_tokens
        )
        progress = _Progress()
        started = time.monotonic()
        try:
            last = await self._stream(model, call, prompt, writer, progress)
        except BaseException as error:
            await self._give_up(reservation, error, progress)
            raise
        text = "".join(progress.parts)
        tokens_in = prompt.tokens if last.tokens_in is None else last.tokens_in
        tokens_out = len(text) // 3 + 1 if last.tokens_out is None else last.tokens_out
        await self._budget.settle(reservation, tokens_in, tokens_out)
        first = time.monotonic() if progress.first_at is None else progress.first_at
        return Generated(
            text=text,
            model=last.model or model,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            finish_reason=last.finish_reason or "",
            first_token_ms=(first - started) * 1000,
            instead_of=instead_of,
        )

    async def _stream(
        self, model: str, call: Call, prompt: Prompt, writer: AnswerWriter, progress: _Progress
    ) -> Delta:
        sanitizer = Sanitizer(addresses_in(passage.text for passage in prompt.passages))
        deltas = self._models.stream(
            prompt.messages,
            model=model,
            max_tokens=call.max_tokens,
            temperature=call.temperature,
            response_format=call.response_format,
            rest=REST,
        )
        async with aclosing(deltas):
            async for delta in deltas:
                if delta.finish_reason is not None:
                    progress.waiting += sanitizer.finish()
                    self._flush(call, writer, progress, last=True)
                    return delta
                progress.parts.append(delta.text)
                if progress.first_at is None:
                    progress.first_at = time.monotonic()
                progress.waiting += sanitizer.feed(delta.text)
                self._flush(call, writer, progress)
        raise CallFailed("the model's reply ended without a finish reason")

    @staticmethod
    def _flush(call: Call, writer: AnswerWriter, progress: _Progress, *, last: bool = False) -> None:
        """Show what may be shown; the last words leave with the citations and the end, which are at hand in a moment."""
        if call.streamed and progress.waiting:
            text, progress.waiting = progress.waiting, ""
            writer.write("token", {"text": text}, later=last)

    async def _give_up(self, reservation: Reservation, error: BaseException, progress: _Progress) -> None:
        """Book a call that brought no answer: what may have been paid for is waste."""
        refused = isinstance(error, PenstockError) and not isinstance(error, CallFailed | Unavailable)
        if refused and not progress.parts:
            await self._budget.release(reservation)
        else:
            await self._budget.waste(reservation)

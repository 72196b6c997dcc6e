"""Examples from all three doors pass through here before anything is written: screened, and their prompts embedded.

What a dataset asks for is read here and believed for a second; the writing happens in `intake`, under its lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from infra.database import queries
from infra.llm import ModelApi
from schemas.states import ExampleState
from schemas.values import Message
from workers.handling import Resources
from workers.train.examples import check_example, screened_text
from workers.train.intake import Entry
from workers.train.nearness import Prompts
from workers.train.screening import broken_rules, redacted

FRESH = 1.0
_MANY = 10_000
_log = structlog.get_logger("penstock.train")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a dataset asks of its examples; a new one asks for this."""

    screening: str = "quarantine"
    near_duplicate: float | None = 0.97


class Admission:
    """Prepares examples for their dataset."""

    def __init__(self, resources: Resources, models: ModelApi) -> None:
        """Use what the pool opened."""
        settings = resources.settings
        self._resources = resources
        self._wishes: dict[tuple[str, str], tuple[float, Wishes]] = {}
        self._prompts = Prompts(models, resources.budget, settings.embed_model, settings.embed_dimensions)

    async def prepare(self, tenant_id: str, dataset: str, entries: Sequence[Entry]) -> list[Entry]:
        """Screen, and embed what is to be looked for among the known.

        Raises:
            PenstockError: a prompt could not be embedded; the work waits.
        """
        wishes = await self._read(tenant_id, dataset)
        clean = [screened(entry, wishes.screening) for entry in entries]
        for entry in clean:
            if entry.rules:
                _log.info(
                    "train.example_screened", dataset=dataset, status=str(entry.status), rules=entry.rules
                )
        if wishes.near_duplicate is None:
            return clean
        vectors = await asyncio.gather(
            *(self._prompts.vector(tenant_id, entry.checked.messages) for entry in clean)
        )
        return [
            replace(entry, near=vector, embed_model=self._prompts.model)
            for entry, vector in zip(clean, vectors, strict=True)
        ]

    async def aclose(self) -> None:
        """Wait for what is under way."""
        await self._prompts.aclose()

    async def _read(self, tenant_id: str, dataset: str) -> Wishes:
        now = time.monotonic()
        known = self._wishes.get((tenant_id, dataset))
        if known is not None and known[0] > now:
            return known[1]
        async with self._resources.database.transaction(tenant_id, readonly=True) as connection:
            row = await connection.fetchrow(queries("train").wishes, tenant_id, dataset)
        wishes = Wishes() if row is None else Wishes(row["screening"], row["near_duplicate"])
        if len(self._wishes) > _MANY:
            self._wishes.clear()
        self._wishes[tenant_id, dataset] = (now + FRESH, wishes)
        return wishes


def screened(entry: Entry, screening: str) -> Entry:
    """The entry as its dataset wants it where it holds secrets or personal data: kept apart, or without them.

    What cannot be taken out (from a tool call, whose arguments would break) is kept apart in any case.
    """
    rules = tuple(broken_rules(screened_text(entry.checked.messages)))
    if not rules:
        return entry
    if screening == "redact":
        clean = check_example([_redacted(message) for message in entry.checked.messages])
        if not broken_rules(screened_text(clean.messages)):
            return replace(entry, checked=clean, rules=rules)
    return replace(entry, status=ExampleState.QUARANTINED, rules=rules)


def _redacted(message: dict[str, Any]) -> Message:
    content = message.get("content")
    if isinstance(content, str):
        content = redacted(content)
    elif isinstance(content, list):
        content = [{**part, "text": redacted(part["text"])} for part in content]
    return Message.model_validate({**message, "content": content})

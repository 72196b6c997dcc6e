"""The name of a model that a question gives becomes the model that answers it, at most a second after it was changed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from infra.database import Database, queries

DEFAULT_ALIAS = "chat"
FRESH = 0.5
"""Seconds for which a look-up is believed: a change is everywhere within a second, the look-up's own time included."""
AVOIDED = 30.0
"""Seconds for which a tuned model that is gone or failing is not tried again."""
_MANY = 10_000


@dataclass(frozen=True, slots=True)
class Resolved:
    """What an alias means now.

    Attributes:
        model: what to call first.
        base: what to call when `model` is gone or failing; the same as `model` when there is nothing else.
        dataset: the dataset that `model` was tuned on, if it was.
    """

    alias: str
    model: str
    base: str
    dataset: str | None = None

    @property
    def tuned(self) -> bool:
        """Whether there is another model to fall back to."""
        return self.model != self.base


class Aliases:
    """Resolves aliases of tenants. A row belongs to one tenant, so a tuned model is used by its own tenant only."""

    def __init__(self, database: Database, default_model: str) -> None:
        """Prepare.

        Args:
            database: acts as ``penstock_worker`` or ``penstock_gateway``.
            default_model: what every alias means until somebody sets it.
        """
        self._database = database
        self._default = default_model
        self._known: dict[tuple[str, str], tuple[float, Resolved]] = {}
        self._avoid: dict[str, float] = {}

    async def resolve(self, tenant_id: str, alias: str | None) -> Resolved:
        """What an alias means; one without a row means the default model."""
        name = alias or DEFAULT_ALIAS
        now = time.monotonic()
        known = self._known.get((tenant_id, name))
        if known is None or known[0] <= now:
            if len(self._known) > _MANY:
                self._known.clear()
            known = (now + FRESH, await self._load(tenant_id, name))
            self._known[tenant_id, name] = known
        return self._served(known[1])

    def known(self, tenant_id: str, alias: str | None) -> Resolved | None:
        """What an alias meant when it was looked up last, however long ago; None when it never was."""
        known = self._known.get((tenant_id, alias or DEFAULT_ALIAS))
        return None if known is None else self._served(known[1])

    def _served(self, resolved: Resolved) -> Resolved:
        if self._avoid.get(resolved.model, 0.0) > time.monotonic():
            return Resolved(resolved.alias, resolved.base, resolved.base)
        return resolved

    def avoid(self, model: str) -> None:
        """Use the base model instead of this one for a while."""
        if len(self._avoid) > _MANY:
            self._avoid.clear()
        self._avoid[model] = time.monotonic() + AVOIDED

    async def _load(self, tenant_id: str, alias: str) -> Resolved:
        rows = await self._database.read(tenant_id, queries("answer").alias, alias)
        if not rows:
            return Resolved(alias, self._default, self._default)
        [row] = rows
        return Resolved(alias, row["model"], row["base_model"] or self._default, row["dataset"])

"""Secrets of API keys come in here and the keys behind them go out, looked up at most once a second each."""

from __future__ import annotations

import asyncio
import time

import structlog

from infra.database import Database
from infra.keys import FoundKey, find_key, key_sha256, remember_used
from schemas.errors import PenstockError

FRESH = 0.9
"""Seconds for which a key is believed: a revocation works within a second."""
MAX_CACHED = 10_000
USED_EVERY = 30.0
_log = structlog.get_logger("penstock.gateway")


class KeyRing:
    """Keys that were used within the last second, by the hash of their secret."""

    def __init__(self, database: Database) -> None:
        """Use a database that acts as the gateway."""
        self._database = database
        self._known: dict[bytes, tuple[float, FoundKey]] = {}
        self._asking: dict[bytes, asyncio.Task[FoundKey | None]] = {}
        self._used: set[str] = set()

    async def find(self, secret: str) -> FoundKey | None:
        """Who is behind a secret; concurrent calls with the same one share a look-up."""
        sha = key_sha256(secret)
        now = time.monotonic()
        held = self._known.get(sha)
        if held is not None and now - held[0] < FRESH:
            return held[1]
        task = self._asking.get(sha)
        if task is None:
            task = asyncio.create_task(self._ask(sha, secret, now))
            self._asking[sha] = task
            task.add_done_callback(lambda _: self._asking.pop(sha, None))
        # One caller that goes away must not take the others' answer with it.
        return await asyncio.shield(task)

    async def _ask(self, sha: bytes, secret: str, asked_at: float) -> FoundKey | None:
        found = await find_key(self._database, secret)
        self._known.pop(sha, None)
        if found is not None:
            if len(self._known) >= MAX_CACHED:
                self._known.pop(next(iter(self._known)))
            self._known[sha] = (asked_at, found)
            self._used.add(found.key_id)
        return found

    async def note_used(self) -> None:
        """Write when keys were last used, every half minute, until cancelled."""
        while True:
            await asyncio.sleep(USED_EVERY)
            await self.flush_used()

    async def flush_used(self) -> None:
        """Write it now; an outage costs a timestamp and nothing else."""
        used, self._used = sorted(self._used), set()
        if not used:
            return
        try:
            await remember_used(self._database, used)
        except PenstockError as error:
            self._used.update(used)
            _log.warning("gateway.key_times_kept_back", keys=len(used), reason=error.message)

"""Calls to the model API pass through here, at a pace that all processes share through Redis.

Requests and tokens per minute are learned from the provider's headers; how much is under way at once follows what it
bears; questions go before documents. A short wait is waited here, a long one goes back to the queue, uncharged. A wrong
key or an empty account pauses everybody, with the reason, until an operator or a single probing call finds that it works
again. While Redis is away calls are made without a governor: the provider's own refusals remain.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import orjson
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from infra.governor_rules import TERMS, WIDEST, End, Limits, Priority, end_of, read_limits
from infra.queue_keys import PREFIX
from infra.settings import Settings
from schemas.errors import PenstockError, PoolPaused, RateLimited

_log = structlog.get_logger("penstock.governor")
INDEX = f"{PREFIX}governor"
"""A hash from account and model to the time of its first use: what `insight` looks at. Expires after an idle day."""
_SILENCE = 60.0
_SLOW = 2.0
"""Seconds after which Redis counts as away."""


@dataclass(slots=True)
class Permit:
    """One call that may be made; whoever makes it says here what the reply said."""

    call_id: str
    tokens: int
    limits: Limits = field(default_factory=Limits)
    used: int | None = None

    def heard(self, headers: Mapping[str, str], used: int | None = None) -> None:
        """Note a reply's headers, and the tokens that the provider counted."""
        self.limits, self.used = read_limits(headers), used


@dataclass(frozen=True, slots=True)
class Insight:
    """How one model of one account stands, for operators.

    Attributes:
        requests: per minute, as the provider says; 0 when it does not say.
        blocked: seconds until the end of a wait that the provider asked for.
        refusals: 429s within the last hour of use.
        paused: why all calls wait, or None.
    """

    account: str
    model: str
    requests: float
    tokens: float
    window: float
    under_way: int
    blocked: float
    refusals: int
    paused: str | None


@cache
def _script(name: str) -> str:
    return (Path(__file__).parent / "scripts" / f"governor_{name}.lua").read_text(encoding="utf-8")


def account_of(base_url: str, api_key: str) -> str:
    """Names an account without telling its key."""
    return hashlib.sha256(f"{base_url}\0{api_key}".encode()).hexdigest()[:16]


def _keys(account: str, model: str) -> list[str]:
    home = f"{PREFIX}governor:{account}"
    return [f"{home}:{model}", f"{home}:{model}:calls", f"{home}:pause"]


class Governor:
    """The pace of one account's calls."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        account: str,
        *,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        lease: float = 90.0,
    ) -> None:
        """Share the pace of an account.

        Args:
            client: Redis, where the pace is kept.
            account: see `account_of`.
            requests_per_minute: for providers that do not say; 0 believes what they say.
            tokens_per_minute: the same for tokens.
            lease: seconds after which a call counts as over although nobody said so.
        """
        self._redis = client
        self._ask = client.register_script(_script("ask"))
        self._tell = client.register_script(_script("tell"))
        self._account = account
        self._fixed = (requests_per_minute, tokens_per_minute)
        self._lease = round(lease * 1000)
        self._known: set[str] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._complained = -_SILENCE

    @classmethod
    def of(cls, client: redis.asyncio.Redis, settings: Settings) -> Governor:
        """The governor of the account that the settings name."""
        key = settings.openai_api_key
        return cls(
            client,
            account_of(settings.openai_base_url or "", "" if key is None else key.get_secret_value()),
            requests_per_minute=settings.model_requests_per_minute,
            tokens_per_minute=settings.model_tokens_per_minute,
            lease=settings.model_timeout + 30,
        )

    @asynccontextmanager
    async def call(self, model: str, tokens: int, priority: Priority) -> AsyncIterator[Permit]:
        """Wait until a call may be made, and learn from how it ends.

        Args:
            model: whose limits count.
            tokens: that the call will take, estimated.
            priority: who goes first; a question whose call went well does not wait until that is told.

        Raises:
            RateLimited: the wait is too long to be waited here; says how long it is.
            PoolPaused: an operator has to act; says why.
        """
        permit = Permit(secrets.token_hex(8), tokens)
        governed = await self._wait(model, permit, priority)
        raised: BaseException | None = None
        try:
            yield permit
        except BaseException as error:
            raised = error
            raise
        finally:
            if governed:
                ending = asyncio.create_task(self._end(model, permit, raised))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
                if raised is not None or priority is not Priority.QUESTION:
                    # Shielded: a call that is cancelled must not hold its place until its lease ends.
                    await asyncio.shield(ending)

    async def _wait(self, model: str, permit: Permit, priority: Priority) -> bool:
        """Return when the call may be made; False when there is no governor."""
        deadline = time.monotonic() + TERMS[priority].patience
        while True:
            try:
                async with asyncio.timeout(_SLOW):
                    verdict, wait_ms, *reason = await self._ask_for(model, permit, priority)
            except (RedisError, OSError) as error:
                self._complain(error)
                return False
            wait = wait_ms / 1000
            if verdict == b"go":
                if wait:
                    await asyncio.sleep(wait)
                return True
            if verdict == b"paused":
                raise _paused(orjson.loads(reason[0]), wait)
            if time.monotonic() + wait > deadline:
                raise RateLimited("the model API is used to its limits", retry_after=wait)
            await asyncio.sleep(wait * random.uniform(1.0, 1.2))  # noqa: S311 - jitter

    async def _ask_for(self, model: str, permit: Permit, priority: Priority) -> list[Any]:
        terms = TERMS[priority]
        await self._list(model)
        args: list[str | int | float] = [
            *(permit.call_id, permit.tokens, terms.burst * 1000, terms.horizon * 1000),
            *(terms.share, self._lease, int(priority is Priority.QUESTION), *self._fixed, WIDEST),
        ]
        return await cast("Awaitable[list[Any]]", self._ask(keys=_keys(self._account, model), args=args))

    async def _end(self, model: str, permit: Permit, error: BaseException | None) -> None:
        end = end_of(error)
        wait = getattr(error, "retry_after", None)
        more = 0 if permit.used is None else permit.used - permit.tokens
        reason = orjson.dumps(error.as_dict()) if isinstance(error, PenstockError) else b""
        requests, tokens = permit.limits.requests, permit.limits.tokens
        try:
            said = await cast(
                "Awaitable[bytes]",
                self._tell(
                    keys=_keys(self._account, model),
                    args=[
                        *(permit.call_id, end.value, -1 if wait is None else round(wait * 1000)),
                        *(requests.per_minute, requests.left, tokens.per_minute, tokens.left),
                        *(more, WIDEST, TERMS[Priority.INGEST].burst * 1000, reason),
                    ],
                ),
            )
        except (RedisError, OSError) as fault:
            self._complain(fault)
            return
        if said == b"paused" and isinstance(error, PenstockError):
            _log.error("governor.paused", error=error.code, message=error.message, next_step=error.fix)
        elif said == b"resumed":
            _log.info("governor.resumed", model=model)
        elif end is End.LIMITED:
            _log.info("governor.limited", model=model, retry_after=wait)

    async def _list(self, model: str) -> None:
        """Let `insight` find the model."""
        if model not in self._known:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hset(INDEX, f"{self._account} {model}", str(int(time.time())))
                pipe.expire(INDEX, 86_400)
                await pipe.execute()
            self._known.add(model)

    def _complain(self, error: Exception) -> None:
        if time.monotonic() - self._complained >= _SILENCE:
            self._complained = time.monotonic()
            _log.warning(
                "governor.redis_away",
                error=type(error).__name__,
                next_step="calls are made without a common pace until Redis is back",
            )


def _paused(reason: Mapping[str, str], wait: float) -> PoolPaused:
    return PoolPaused(
        reason.get("message", ""), field=reason.get("field"), fix=reason.get("fix"), retry_after=wait
    )


async def insight(client: redis.asyncio.Redis) -> list[Insight]:
    """How the models of all accounts stand.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    found: list[Insight] = []
    now = time.time()
    listed = await cast("Awaitable[dict[bytes, bytes]]", client.hgetall(INDEX))
    for name in sorted(listed):
        account, model = name.decode().split(" ", 1)
        state_key, calls_key, pause_key = _keys(account, model)
        async with client.pipeline(transaction=False) as pipe:
            pipe.hgetall(state_key)
            pipe.zcount(calls_key, now * 1000, "+inf")
            pipe.hget(pause_key, "reason")
            state, calls, reason = await pipe.execute()
        numbers = {key.decode(): float(value) for key, value in state.items()}
        found.append(
            Insight(
                account=account,
                model=model,
                requests=numbers.get("requests", 0.0),
                tokens=numbers.get("tokens", 0.0),
                window=numbers.get("window", float(WIDEST)),
                under_way=int(calls),
                blocked=max(0.0, numbers.get("blocked", 0.0) / 1000 - now),
                refusals=int(numbers.get("refusals", 0)),
                paused=None if reason is None else str(orjson.loads(reason)["message"]),
            )
        )
    return found


async def resume(client: redis.asyncio.Redis) -> int:
    """End every pause at once; returns how many there were. A cause that is still there pauses again."""
    listed = await cast("Awaitable[dict[bytes, bytes]]", client.hgetall(INDEX))
    accounts = {name.decode().split(" ", 1)[0] for name in listed}
    keys = [_keys(account, "")[2] for account in sorted(accounts)]
    return int(await client.delete(*keys)) if keys else 0

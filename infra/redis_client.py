"""Commands to Redis pass through here: redis-py's own client and pipelines, over one line that a process shares.

Commands that wait in Redis go over lines of their own; transactions that watch keys, and subscriptions, go redis-py's way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import ConnectionPool
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import ExecAbortError, ResponseError, WatchError

from infra.redis_line import Trunk

_WAITING = frozenset(
    [
        "BLPOP",
        "BRPOP",
        "BLMOVE",
        "BLMPOP",
        "BRPOPLPUSH",
        "BZPOPMIN",
        "BZPOPMAX",
        "BZMPOP",
        "WAIT",
        "WAITAOF",
    ]
)
_OURS = frozenset({NEVER_DECODE, EMPTY_RESPONSE, "keys"})
"""Options that are meant for redis-py itself."""
_Callbacks = Mapping[str | bytes, Callable[..., Any]]


def _waits(command: Sequence[Any]) -> bool:
    """Whether a command may keep those behind it waiting."""
    name = command[0]
    if name in {"XREAD", "XREADGROUP"}:
        return b"BLOCK" in command or "BLOCK" in command
    return name in _WAITING


class Client(redis.asyncio.Redis):
    """redis-py's client for a process that says much to Redis."""

    def __init__(self, **options: Any) -> None:
        """As redis-py's; use `from_url`."""
        super().__init__(**options)
        # Half of redis-py's hints say that it could be a pool of the other, blocking kind.
        self._pool: ConnectionPool = self.connection_pool  # pyright: ignore[reportAttributeAccessIssue]
        self._trunk = Trunk(self._pool)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command; its reply, as redis-py's methods return it."""
        send = self._trunk.wait if _waits(args) else self._trunk.send
        [reply] = await send([_split(args)])
        if isinstance(reply, Exception):
            if EMPTY_RESPONSE in options:
                return options[EMPTY_RESPONSE]
            raise reply
        return await _read(self.response_callbacks, args, options, reply)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipelined:
        """Commands that leave together, by default as one transaction."""
        made = Pipelined(self._pool, self.response_callbacks, transaction, shard_hint)
        made.trunk = self._trunk
        return made

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the line as well."""
        await self._trunk.aclose()
        await super().aclose(close_connection_pool)


class Pipelined(Pipeline):
    """redis-py's pipeline, over the shared line."""

    trunk: Trunk

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send what was gathered.

        Raises:
            redis.exceptions.RedisError: as redis-py's.
        """
        stack = list(self.command_stack)
        if self.watching or self.explicit_transaction or not stack:
            return await super().execute(raise_on_error)
        try:
            if self.scripts:
                await self.load_scripts()  # type: ignore[no-untyped-call] # as above
            commands = [_split(args) for args, _ in stack]
            send = self.trunk.wait if any(map(_waits, commands)) else self.trunk.send
            if self.is_transaction:
                replies = _result(await send([("MULTI",), *commands, ("EXEC",)]))
            else:
                replies = await send(commands)
            if raise_on_error:
                self.raise_first_error(stack, replies)
            return [
                reply
                if isinstance(reply, Exception)
                else await _read(self.response_callbacks, args, options, reply)
                for reply, (args, options) in zip(replies, stack, strict=True)
            ]
        finally:
            await self.reset()  # type: ignore[no-untyped-call] # as above

    async def __aenter__(self) -> Self:
        """Nothing is held yet."""
        return self


def _result(replies: list[Any]) -> list[Any]:
    """The replies to a transaction's commands.

    Raises:
        redis.exceptions.ResponseError: a command was refused, and so nothing was done.
    """
    *queued, result = replies
    if isinstance(result, ExecAbortError):
        raise next((one for one in queued if isinstance(one, ResponseError)), result) from None
    if isinstance(result, Exception):
        raise result
    if result is None:
        raise WatchError("a watched key changed")
    return cast("list[Any]", result)


def _split(args: Sequence[Any]) -> Sequence[Any]:
    """redis-py names some commands by two words."""
    return [*args[0].split(), *args[1:]] if isinstance(args[0], str) and " " in args[0] else args


async def _read(callbacks: _Callbacks, args: Sequence[Any], options: Mapping[str, Any], reply: Any) -> Any:
    """A reply as redis-py's methods return it."""
    read = callbacks.get(args[0])
    if read is None:
        return reply
    found = read(reply, **{name: value for name, value in options.items() if name not in _OURS})
    return await found if inspect.isawaitable(found) else found

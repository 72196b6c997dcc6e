from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from enum import StrEnum
from typing import cast

import pytest
import redis.asyncio
from redis.exceptions import (
    AuthenticationError,
    DataError,
    InvalidResponse,
    NoScriptError,
    RedisError,
    ResponseError,
    WatchError,
)
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import TimeoutError as TooLate

from infra.redis_client import Client
from tests.conftest import Stack
from tests.infra.raw_server import Exchange, raw_server


class Name(StrEnum):
    """A name that is text."""

    A = "name-a"


async def connected(client: redis.asyncio.Redis, count: int, command: str | None = None) -> set[str]:
    """Wait until so many are connected under the tests' name, and last sent a command; the server's numbers of them."""
    async with asyncio.timeout(30):
        while True:
            named = [one for one in await client.client_list() if one["name"] == "counted"]
            found = {one["id"] for one in named if command in {None, one["cmd"]}}
            if len(found) == count:
                return found
            await asyncio.sleep(0.01)


async def test_all_share_one_connection_and_each_gets_its_own_reply(
    stack: Stack, redis_client: redis.asyncio.Redis
) -> None:
    """A hundred callers at once, plain and in pipelines, and one of them cancelled: no reply goes astray."""
    client = Client.from_url(stack.servers.redis_url, client_name="counted")

    async def ask(n: int) -> None:
        await client.set(f"k{n}", n)
        async with client.pipeline(transaction=n % 2 == 0) as pipe:
            pipe.get(f"k{n}")
            pipe.hset(f"h{n}", mapping={"a": n, "b": 0.5})
            pipe.hgetall(f"h{n}")
            assert [b"%d" % n, 2, {b"a": b"%d" % n, b"b": b"0.5"}] == await pipe.execute()

    gone = asyncio.create_task(ask(1000))
    asked = [asyncio.create_task(ask(n)) for n in range(100)]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(*asked)
    await connected(redis_client, 1)
    await client.aclose(close_connection_pool=True)
    await connected(redis_client, 0)


async def test_what_waits_in_redis_keeps_nobody_waiting(
    stack: Stack, redis_client: redis.asyncio.Redis
) -> None:
    """A list and a stream that are waited for have connections of their own; so has a watched key. Who is gone gets nothing."""
    client = Client.from_url(stack.servers.redis_url, client_name="counted")
    waiting = asyncio.gather(
        cast("Awaitable[object]", client.blpop(["bell"], timeout=30)),
        client.xread({"news": "0"}, block=30_000),
    )
    await connected(redis_client, 2)
    async with client.pipeline() as pipe:
        await pipe.watch("seen")
        await client.set("seen", 1)
        pipe.multi()
        pipe.set("seen", 2)
        with pytest.raises(WatchError):
            await pipe.execute()
    await client.xadd("news", {"a": Name.A})
    await cast("Awaitable[int]", client.rpush("bell", "1"))
    async with asyncio.timeout(30):
        [bell, [[_, [[_, fields]]]]] = await waiting
    assert ((b"bell", b"1"), {b"a": b"name-a"}) == (bell, fields)
    gone: asyncio.Task[object] = asyncio.create_task(client.blpop(["bell"], timeout=30))  # pyright: ignore[reportArgumentType] # redis-py has hints of both kinds
    [waits] = await connected(redis_client, 1, "blpop")
    gone.cancel()
    await asyncio.wait([gone])
    await connected(redis_client, 0, "blpop")
    assert waits
    await cast("Awaitable[int]", client.rpush("bell", "2"))
    assert await cast("Awaitable[int]", client.llen("bell")) == 1
    await client.aclose(close_connection_pool=True)


async def test_errors_are_those_of_redis_py(redis_client: redis.asyncio.Redis) -> None:
    """A refused command, an aborted transaction, a forgotten script, an argument that cannot be sent."""
    await redis_client.set("text", "a")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await cast("Awaitable[object]", redis_client.hgetall("text"))
    with pytest.raises(NoScriptError):
        await cast("Awaitable[object]", redis_client.evalsha("0" * 40, 0))
    with pytest.raises(DataError):
        await redis_client.set("text", None)  # type: ignore[arg-type] # the mistake under test # pyright: ignore[reportArgumentType]
    for transaction in (True, False):
        async with redis_client.pipeline(transaction=transaction) as pipe:
            pipe.set("other", "b")
            pipe.hgetall("text")
            [done, refused] = await pipe.execute(raise_on_error=False)
            assert done is True
            assert isinstance(refused, ResponseError)
            pipe.hgetall("text")
            with pytest.raises(ResponseError, match=r"Command # 1 \(HGETALL text\)"):
                await pipe.execute()
    async with redis_client.pipeline() as pipe:
        pipe.set("never", "c")
        pipe.execute_command("NO_SUCH_COMMAND")
        with pytest.raises(ResponseError, match="NO_SUCH_COMMAND"):
            await pipe.execute()
    assert await redis_client.exists("never") == 0


async def test_a_broken_connection_is_told_and_dialled_anew(
    stack: Stack, redis_client: redis.asyncio.Redis
) -> None:
    """The next command finds a new one; a wrong password is not taken for a broken one."""
    client = Client.from_url(stack.servers.redis_url, client_name="counted")
    await client.ping()
    for _ in range(2):
        [mine] = await connected(redis_client, 1)
        await redis_client.client_kill_filter(_id=mine)
        with suppress(ConnectionFailed):  # told, unless the loop has heard of it already
            await client.ping()
        assert await client.ping()
        assert {mine} != await connected(redis_client, 1)
    await client.aclose(close_connection_pool=True)
    url = stack.servers.redis_url
    stranger = Client.from_url(url.replace(url.partition("@")[0], "redis://:wrong"))
    with pytest.raises(AuthenticationError):
        await stranger.ping()
    await stranger.aclose(close_connection_pool=True)


@pytest.mark.parametrize(
    ("says", "error"), [(b"-ERR half", TooLate), (b"?what\r\n", InvalidResponse), (None, ConnectionFailed)]
)
async def test_a_server_that_does_not_answer_is_left(says: bytes | None, error: type[RedisError]) -> None:
    """Silence ends after redis-py's time-out, nonsense and a hang-up at once, and all of them for all who wait."""

    async def script(exchange: Exchange) -> None:
        if says is None:
            exchange.writer.close()
            return
        await exchange.say(says)
        await exchange.reader.read()

    async with raw_server(script) as server:
        client = Client.from_url(
            f"redis://127.0.0.1:{server.port}",
            socket_timeout=0.1 if error is TooLate else 60,
            socket_connect_timeout=60,
            lib_name=None,
            lib_version=None,
        )
        # What the raw server takes for a request's end.
        asked = [client.execute_command("X", "\r\n\r\n"), client.get("a"), client.get("b")]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {error} == {type(one) for one in outcomes}
        await client.aclose(close_connection_pool=True)

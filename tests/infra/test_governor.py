from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from typing import cast

import pytest
import redis.asyncio

from infra.bus import open_redis
from infra.governor import Governor, account_of, insight, resume
from infra.governor_rules import WIDEST, Allowance, End, Limits, Priority, end_of, read_limits
from infra.llm import ModelApi
from infra.local.model.faults_client import Faults
from infra.local.model.server import ModelServer
from schemas.errors import (
    CallFailed,
    ModelAway,
    PenstockError,
    PoolPaused,
    RateLimited,
    Refused,
    Unavailable,
)

QUESTION, INGEST, BACKGROUND = Priority
KEY_REFUSED = PoolPaused("the model API refused the key (401)", field="OPENAI_API_KEY", fix="set a valid key")


async def make(client: redis.asyncio.Redis, count: int = 3, **fixed: int) -> list[Governor]:
    """Governors of one account, as so many processes have them."""
    return [Governor(client, "account", **fixed) for _ in range(count)]


async def call(
    governor: Governor,
    priority: Priority = INGEST,
    *,
    tokens: int = 10,
    headers: Mapping[str, str] | None = None,
    error: BaseException | None = None,
) -> None:
    """One call that ends at once, well or with an error."""
    async with governor.call("m", tokens, priority) as permit:
        if error is not None:
            raise error
        permit.heard(headers or {}, tokens)


async def narrow(client: redis.asyncio.Redis) -> None:
    """Let two calls be under way at once."""
    await cast("Awaitable[int]", client.hset("penstock:v1:governor:account:m", "window", "2"))


async def fail(governor: Governor, error: PenstockError) -> None:
    """One call that ends with this error."""
    with pytest.raises(type(error)):
        await call(governor, error=error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, End.OK),
        (KEY_REFUSED, End.PAUSED),
        (RateLimited(retry_after=1), End.LIMITED),
        (ModelAway(), End.AWAY),
        (Unavailable(), End.AWAY),
        (Refused(provider_status=400), End.OK),
        (CallFailed(), End.OK),
        (asyncio.CancelledError(), End.DROPPED),
        (TypeError(), End.DROPPED),
    ],
)
def test_what_an_outcome_says_of_the_provider(error: BaseException | None, expected: End) -> None:
    """Overload slows down, a missing quota stops, a refused input is an answer like any other."""
    assert expected is end_of(error)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Limits()),
        (
            {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"},
            Limits(Allowance(500, 499)),
        ),
        ({"x-ratelimit-limit-tokens": "1000000"}, Limits(tokens=Allowance(1_000_000, -1))),
        ({"x-ratelimit-limit-tokens": "many", "x-ratelimit-limit-requests": "²"}, Limits()),
    ],
)
def test_limits_are_read_from_headers(headers: Mapping[str, str], expected: Limits) -> None:
    """What is absent or no number is not known."""
    assert expected == read_limits(headers)


async def test_all_processes_share_one_pace(redis_client: redis.asyncio.Redis) -> None:
    """A call of one process uses up what another may do; who would wait long is told how long, and calls nothing."""
    one, two, three = await make(redis_client, requests_per_minute=4)
    await call(one)
    for governor in (two, three):
        with pytest.raises(RateLimited) as caught:
            await call(governor)
        assert caught.value.retry_after is not None
        assert 5 < caught.value.retry_after <= 16


async def test_tokens_are_paced_like_requests(redis_client: redis.asyncio.Redis) -> None:
    """A large call uses up the tokens of the next minutes, whatever the number of requests."""
    one, two, _ = await make(redis_client, tokens_per_minute=1000)
    await call(one, tokens=2000)
    with pytest.raises(RateLimited) as caught:
        await call(two, tokens=1)
    assert caught.value.retry_after is not None
    assert 60 < caught.value.retry_after <= 123


async def test_the_provider_says_what_its_limits_are(redis_client: redis.asyncio.Redis) -> None:
    """The headers of one process's reply hold for all; before the first reply nothing is known and nothing waits."""
    one, two, _ = await make(redis_client)
    await call(one)
    await call(two, headers={"x-ratelimit-limit-requests": "4", "x-ratelimit-remaining-requests": "3"})
    await call(one)
    with pytest.raises(RateLimited):
        await call(two)
    [found] = await insight(redis_client)
    assert ("m", 4, 0) == (found.model, found.requests, found.under_way)


async def test_what_others_used_up_is_believed(redis_client: redis.asyncio.Redis) -> None:
    """Nothing left although we called little: somebody else has the same key, and we wait for the next place."""
    one, two, _ = await make(redis_client)
    await call(one, headers={"x-ratelimit-limit-requests": "4", "x-ratelimit-remaining-requests": "0"})
    with pytest.raises(RateLimited):
        await call(two)


async def test_questions_go_before_documents(redis_client: redis.asyncio.Redis) -> None:
    """While documents have used up the pace, a question is let through at once."""
    one, two, _ = await make(redis_client, requests_per_minute=20)
    for _ in range(2):
        await call(one, INGEST)
    with pytest.raises(RateLimited):
        await call(one, BACKGROUND)
    await call(two, QUESTION)


async def test_the_window_is_shared_by_priority(redis_client: redis.asyncio.Redis) -> None:
    """A full window holds documents back and still has room for a question; a place that is free is taken."""
    one, two, _ = await make(redis_client)
    await call(one)
    await narrow(redis_client)
    async with AsyncExitStack() as held:
        await held.enter_async_context(one.call("m", 1, INGEST))
        waiting = asyncio.create_task(call(two, INGEST))
        await call(two, QUESTION)
        assert not waiting.done()
    await waiting


async def test_overload_halves_what_is_under_way_at_once(redis_client: redis.asyncio.Redis) -> None:
    """One wave of failures halves it once; good calls let it grow again."""
    one, two, _ = await make(redis_client)
    await fail(one, ModelAway())
    await fail(two, ModelAway())
    [found] = await insight(redis_client)
    assert WIDEST / 2 == found.window
    await narrow(redis_client)
    await call(one)
    await call(one)
    [found] = await insight(redis_client)
    assert 2 < found.window <= 3


async def test_one_refusal_stops_everybody(redis_client: redis.asyncio.Redis) -> None:
    """What `Retry-After` says holds for all processes: no storm of calls that would be refused."""
    one, two, _ = await make(redis_client)
    await fail(one, RateLimited(retry_after=60))
    for priority in Priority:
        with pytest.raises(RateLimited) as caught:
            await call(two, priority)
        assert caught.value.retry_after is not None
        assert 40 < caught.value.retry_after < 62
    [found] = await insight(redis_client)
    assert (1, True) == (found.refusals, 40 < found.blocked <= 60)


async def test_a_wrong_key_pauses_all_with_its_reason(redis_client: redis.asyncio.Redis) -> None:
    """Nobody calls any more, everybody says why; an operator who has mended it lets all go on."""
    one, two, _ = await make(redis_client)
    await fail(one, KEY_REFUSED)
    with pytest.raises(PoolPaused) as caught:
        await call(two)
    assert (KEY_REFUSED.message, KEY_REFUSED.fix) == (caught.value.message, caught.value.fix)
    assert [KEY_REFUSED.message] == [found.paused for found in await insight(redis_client)]
    assert await resume(redis_client) == 1
    await call(two)


async def test_a_pause_ends_by_itself_when_it_works_again(redis_client: redis.asyncio.Redis) -> None:
    """One call at a time tries it; when it goes well, all may call again."""
    one, two, _ = await make(redis_client)
    await fail(one, KEY_REFUSED)
    async with asyncio.timeout(60):
        while True:
            try:
                async with one.call("m", 1, INGEST):
                    with pytest.raises(PoolPaused):
                        await call(two)
                break
            except PoolPaused as paused:
                await asyncio.sleep(paused.retry_after or 0.0)
    await call(two)


async def test_who_goes_away_gives_the_place_back(redis_client: redis.asyncio.Redis) -> None:
    """A cancelled call is not under way any more, and says nothing of the provider."""
    [one] = await make(redis_client, 1)
    began = asyncio.Event()

    async def hang() -> None:
        async with one.call("m", 1, INGEST):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await began.wait()
    task.cancel()
    await asyncio.wait([task])
    [found] = await insight(redis_client)
    assert (0, WIDEST) == (found.under_way, found.window)


async def test_without_redis_calls_are_made_all_the_same() -> None:
    """The pace is lost, the work is not."""
    client = open_redis("redis://127.0.0.1:1/0")
    await call(Governor(client, "account", requests_per_minute=1))
    await call(Governor(client, "account", requests_per_minute=1))
    await client.aclose()


async def test_every_kind_of_call_is_governed(
    redis_client: redis.asyncio.Redis, model_server: ModelServer, faults: Faults
) -> None:
    """Embeddings, replies and streams: an empty account is met once, and nothing is sent after that."""
    account = account_of(model_server.base_url, model_server.api_key)
    messages = [{"role": "user", "content": "hello"}]
    async with ModelApi.open(
        model_server.base_url, model_server.api_key, governor=Governor(redis_client, account)
    ) as models:
        await models.embed(["a text"], model="local-embed-256", dimensions=256)
        assert [delta async for delta in models.stream(messages, model="local-chat")]
        async with faults.during("chat", "insufficient_quota"):
            for _ in range(3):
                with pytest.raises(PoolPaused):
                    await models.chat(messages, model="local-chat")
                with pytest.raises(PoolPaused):
                    await anext(models.stream(messages, model="local-chat"))
            with pytest.raises(PoolPaused):
                await models.embed(["a text"], model="local-embed-256", dimensions=256)
        assert (2, 1) == (await faults.requests("chat"), await faults.requests("embeddings"))
        assert {found.under_way for found in await insight(redis_client)} == {0}

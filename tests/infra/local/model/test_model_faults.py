from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.infra.local.model.waiting import until

if TYPE_CHECKING:
    from infra.local.model.faults_client import Faults

EMBED = "local-embed-256"
ASKED = '<passage id="1">\nThe working pressure of the pump is 4 bar.\n</passage>\nQuestion: What is the working pressure?'


async def embed(client: AsyncOpenAI, *texts: str) -> list[list[float]]:
    """The vectors of some texts."""
    return [item.embedding for item in (await client.embeddings.create(model=EMBED, input=list(texts))).data]


async def answer(client: AsyncOpenAI, **options: Any) -> Any:
    """A completion, or its stream."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": ASKED}]
    return await client.chat.completions.create(model="local-chat", messages=messages, **options)


async def drained(stream: AsyncIterator[Any]) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


@pytest.mark.parametrize(
    ("kind", "raised", "code"),
    [
        ("400", openai.BadRequestError, "invalid_request"),
        ("401", openai.AuthenticationError, "invalid_api_key"),
        ("403", openai.PermissionDeniedError, "permission_denied"),
        ("404", openai.NotFoundError, "not_found"),
        ("429", openai.RateLimitError, "rate_limit_exceeded"),
        ("insufficient_quota", openai.RateLimitError, "insufficient_quota"),
        ("loading", openai.RateLimitError, "model_loading"),
        ("500", openai.InternalServerError, None),
        ("503", openai.InternalServerError, None),
    ],
)
async def test_a_refusal_does_no_work(
    kind: str, raised: type[openai.APIStatusError], code: str | None, client: AsyncOpenAI, faults: Faults
) -> None:
    """The client gets the provider's error, and nobody pays."""
    async with faults.during("*", kind):
        for call in (embed(client, "x"), answer(client), client.models.list()):
            with pytest.raises(raised) as caught:
                await call
            assert code == caught.value.code
    assert (0, 0) == (await faults.served("embeddings"), await faults.served("chat"))
    assert 1 == len(await embed(client, "x"))


async def test_a_rate_limit_says_how_long_to_wait(client: AsyncOpenAI, faults: Faults) -> None:
    """In whole seconds and in milliseconds, with the rate-limit headers; or not at all."""
    await faults.add("embeddings", "429", retry_after=0.25, times=1)
    with pytest.raises(openai.RateLimitError) as caught:
        await embed(client, "x")
    headers = caught.value.response.headers
    assert ("1", "250", "0") == (
        headers["retry-after"],
        headers["retry-after-ms"],
        headers["x-ratelimit-remaining-requests"],
    )
    await faults.add("embeddings", "429", retry_after=None, times=1)
    with pytest.raises(openai.RateLimitError) as silent:
        await embed(client, "x")
    assert "retry-after" not in silent.value.response.headers


async def test_the_client_s_own_retries_are_seen(client: AsyncOpenAI, faults: Faults) -> None:
    """Two refusals and a success are three requests and one payment."""
    await faults.add("embeddings", "429", retry_after=0.01, times=2)
    await embed(client.with_options(max_retries=3), "x")
    count = (await faults.calls())["embeddings"]
    assert (3, 2, 1) == (count["requests"], count["refused"], count["served"])
    assert ["429", "429", None] == [call["fault"] for call in await faults.recent("embeddings")]


@pytest.mark.parametrize("kind", ["cut", "malformed", "drop_reply", "hang_reply", "500_after"])
async def test_a_damaged_reply_was_paid_for(kind: str, client: AsyncOpenAI, faults: Faults) -> None:
    """The work is done and counted; the client learns nothing of it."""
    await faults.add("embeddings", kind, seconds=0.05)
    with pytest.raises((openai.APIError, ValueError)):
        await embed(client, "x")
    assert 1 == await faults.served("embeddings")


@pytest.mark.parametrize("kind", ["hang", "drop"])
async def test_a_silent_server_does_no_work(kind: str, client: AsyncOpenAI, faults: Faults) -> None:
    """The client runs into its own time limit, or finds the connection closed."""
    await faults.add("embeddings", kind)
    with pytest.raises(openai.APIConnectionError):
        await embed(client.with_options(timeout=0.3), "x")
    count = (await faults.calls())["embeddings"]
    assert (1, 0) == (count["requests"], count["served"])


async def test_a_fault_hits_the_calls_that_it_should(client: AsyncOpenAI, faults: Faults) -> None:
    """`after` lets calls pass, `times` ends it, and other endpoints are not hit."""
    await faults.add("embeddings", "500", after=1, times=1)
    outcomes = []
    for _ in range(3):
        try:
            await embed(client, "x")
            outcomes.append("ok")
        except openai.InternalServerError:
            outcomes.append("500")
    assert ["ok", "500", "ok"] == outcomes
    assert (await answer(client)).choices
    assert [(1, True)] == [(fault["used"], fault["spent"]) for fault in await faults.shown()]


async def test_a_poison_input_spoils_its_batch_only(client: AsyncOpenAI, faults: Faults) -> None:
    """`match` looks into the inputs, whatever characters they have."""
    await faults.add("embeddings", "400", match='gift "ü"')
    with pytest.raises(openai.BadRequestError):
        await embed(client, "good", 'some gift "ü" here')
    assert 1 == len(await embed(client, "good"))


async def test_vectors_can_be_spoilt(client: AsyncOpenAI, faults: Faults) -> None:
    """NaN where asked, a wrong width, one too few, none at all, or in another order."""
    whole = await embed(client, "one", "two")
    await faults.add("embeddings", "nan", match="two", times=1)
    spoilt = await embed(client, "one", "two")
    assert (whole[0], True) == (spoilt[0], math.isnan(spoilt[1][0]))
    await faults.add("embeddings", "wrong_dimensions", times=1)
    assert [255, 255] == [len(vector) for vector in await embed(client, "one", "two")]
    await faults.add("embeddings", "short", times=1)
    assert 1 == len(await embed(client, "one", "two"))
    await faults.add("embeddings", "shuffled", times=1)
    mixed = (await client.embeddings.create(model=EMBED, input=["one", "two"])).data
    assert [(1, whole[1]), (0, whole[0])] == [(item.index, item.embedding) for item in mixed]
    await faults.add("embeddings", "empty", times=1)
    with pytest.raises(ValueError, match="No embedding data"):
        await embed(client, "one")


async def test_a_stream_can_break_off(client: AsyncOpenAI, faults: Faults) -> None:
    """After some tokens: cut, malformed, or ended without a finish reason."""
    for kind, raised in (("cut", openai.APIConnectionError), ("malformed", ValueError)):
        await faults.add("chat", kind, times=1)
        stream = aiter(await answer(client, stream=True))
        got = [await anext(stream) for _ in range(3)]
        assert "".join(chunk.choices[0].delta.content for chunk in got), kind
        with pytest.raises(raised):
            await drained(stream)
    await faults.add("chat", "no_finish_reason", times=1)
    chunks = [chunk async for chunk in await answer(client, stream=True)]
    assert [None] == list({chunk.choices[0].finish_reason for chunk in chunks})


async def test_a_first_token_can_be_slow(client: AsyncOpenAI, faults: Faults) -> None:
    """The headers come at once; the client's patience for the next bytes ends before the token."""
    await faults.add("chat", "slow_first_token", seconds=20)
    impatient = client.with_options(timeout=0.5)
    stream = await answer(impatient, stream=True)
    with pytest.raises(openai.APITimeoutError):
        await anext(aiter(stream))


async def test_answers_can_be_spoilt(client: AsyncOpenAI, faults: Faults) -> None:
    """A citation of a passage that was not supplied; JSON that is none."""
    async with faults.during("chat", "forged_citation"):
        assert "[99]" in (await answer(client)).choices[0].message.content
    async with faults.during("chat", "bad_json"):
        content = (await answer(client, response_format={"type": "json_object"})).choices[0].message.content
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(content)


async def test_a_reader_who_leaves_is_noticed(client: AsyncOpenAI, faults: Faults) -> None:
    """The stream stops, and the call counts as aborted."""
    await faults.latency("chat", per_token=0.05)
    stream = await answer(client, stream=True)
    await anext(aiter(stream))
    await stream.close()

    async def over() -> bool:
        return not (await faults.calls())["chat"]["in_flight"]

    await until(over)
    count = (await faults.calls())["chat"]
    assert (1, 1) == (count["served"], count["aborted"])


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [("embeddings", "stuck"), ("chat", "nan"), ("nowhere", "500"), ("jobs.run", "429"), ("chat", "nothing")],
)
async def test_a_fault_that_cannot_happen_is_refused(endpoint: str, kind: str, faults: Faults) -> None:
    """A test with a misspelt fault fails instead of proving nothing."""
    with pytest.raises(ValueError, match="supported values are"):
        await faults.add(endpoint, kind)

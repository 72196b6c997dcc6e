from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from infra.llm import Delta, ModelApi
from infra.local.model.faults_client import Faults
from schemas.errors import CallFailed, ModelAway, PenstockError, RateLimited, Refused
from tests.infra.model_calls import MESSAGES
from tests.infra.raw_server import Exchange, raw_server


async def test_a_stream_says_the_same_as_the_whole_reply(models: ModelApi) -> None:
    """The pieces add up, and the last one carries reason, model and tokens."""
    deltas = [delta async for delta in models.stream(MESSAGES, model="local-chat")]
    whole = await models.chat(MESSAGES, model="local-chat")
    assert whole.text == "".join(delta.text for delta in deltas)
    assert len(deltas) > 1
    assert deltas[-1] == Delta("", "stop", "local-chat", whole.tokens_in, whole.tokens_out)
    assert {delta.finish_reason for delta in deltas[:-1]} == {None}


@pytest.mark.parametrize("kind", ["no_finish_reason", "cut"])
async def test_a_stream_without_its_end_is_no_answer(models: ModelApi, faults: Faults, kind: str) -> None:
    """A stream that stops in the middle, cleanly or not, ends in an error."""
    async with faults.during("chat", kind):
        with pytest.raises(CallFailed):
            async for _ in models.stream(MESSAGES, model="local-chat"):
                pass


@pytest.mark.parametrize(("kind", "expected"), [("429", RateLimited), ("404", Refused), ("500", ModelAway)])
async def test_a_refused_stream_yields_nothing(
    models: ModelApi, faults: Faults, kind: str, expected: type[PenstockError]
) -> None:
    """An error status is raised before the first delta, with what the provider asked for."""
    async with faults.during("chat", kind):
        with pytest.raises(expected):
            await anext(models.stream(MESSAGES, model="local-chat"))


async def test_closing_a_stream_ends_the_call() -> None:
    """Whoever stops listening hangs up."""
    hung_up = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await exchange.say(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
        await exchange.reader.read()
        hung_up.set()

    async with (
        raw_server(script) as server,
        ModelApi.open(f"http://127.0.0.1:{server.port}/v1", "k") as models,
    ):
        async with aclosing(models.stream(MESSAGES, model="m")) as stream:
            assert (await anext(stream)).text == "a"
        async with asyncio.timeout(5):
            await hung_up.wait()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_events_are_read_however_they_are_cut(size: int) -> None:
    """Chunk borders, comments, CRLF and split characters make no difference."""
    said = (
        ': comment\r\n\r\ndata: {"model": "m", "choices": [{"delta": {"content": "grün"}}]}\r\n\r\n'
        'event: x\ndata: {"choices": [{"delta": {"content": " ✓"},\ndata: "finish_reason": "stop"}]}\n\n'
        'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'
    ).encode()

    async def script(exchange: Exchange) -> None:
        await exchange.say(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(said)}\r\n\r\n".encode()
        )
        for at in range(0, len(said), size):
            await exchange.say(said[at : at + size])

    async with (
        raw_server(script) as server,
        ModelApi.open(f"http://127.0.0.1:{server.port}/v1", "k") as models,
    ):
        deltas = [delta async for delta in models.stream(MESSAGES, model="m")]
    assert "grün ✓" == "".join(delta.text for delta in deltas)
    assert deltas[-1] == Delta("", "stop", "m", 3, 2)


EVENTS = (
    b'data: {"model": "m", "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n'
    b"data: [DONE]\n\n"
)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("rest", [0.0, 0.01])
async def test_calls_share_a_connection(rest: float) -> None:
    """A stream that came to its end leaves its connection to the next call: no handshake before a first word."""

    async def script(exchange: Exchange) -> None:
        await exchange.say(STREAM + b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENTS), EVENTS))

    async with (
        raw_server(script) as server,
        ModelApi.open(f"http://127.0.0.1:{server.port}/v1", "k") as models,
    ):
        for _ in range(3):
            async with aclosing(models.stream(MESSAGES, model="m", rest=rest)) as stream:
                assert (await anext(stream)).text == "a"
                assert (await anext(stream)).finish_reason == "stop"
        assert server.connections == 1


async def test_a_server_that_never_closes_its_stream_is_not_waited_for() -> None:
    """After the last event the answer is there, whatever the server still means to say."""

    async def script(exchange: Exchange) -> None:
        await exchange.say(STREAM + b"%x\r\n%b\r\n" % (len(EVENTS), EVENTS))
        await exchange.reader.read()

    async with (
        asyncio.timeout(10),
        raw_server(script) as server,
        ModelApi.open(f"http://127.0.0.1:{server.port}/v1", "k") as models,
    ):
        assert ["a", ""] == [one.text async for one in models.stream(MESSAGES, model="m")]

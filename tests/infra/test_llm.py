from __future__ import annotations

import base64

import numpy as np
import orjson
import pytest

from infra.llm import ModelApi, open_client
from infra.local.model.faults_client import Faults
from infra.local.model.server import ModelServer
from schemas.errors import (
    CallFailed,
    Misconfigured,
    ModelAway,
    PenstockError,
    PoolPaused,
    RateLimited,
    Refused,
)
from tests.infra.model_calls import MESSAGES
from tests.infra.raw_server import Exchange, raw_server


async def embed(
    models: ModelApi, *texts: str, dimensions: int = 256
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The vectors of some texts."""
    return (await models.embed(texts, model="local-embed-256", dimensions=dimensions)).vectors


async def test_texts_become_unit_vectors_in_their_order(models: ModelApi) -> None:
    """float32[n, dim], one row per text, and the provider's count of tokens."""
    embedded = await models.embed(["water", "stone", "water"], model="local-embed-256", dimensions=256)
    assert embedded.vectors.dtype == np.float32
    assert embedded.vectors.shape == (3, 256)
    assert np.allclose(np.linalg.norm(embedded.vectors, axis=1), 1.0, atol=1e-5)
    assert np.array_equal(embedded.vectors[0], embedded.vectors[2])
    assert not np.allclose(embedded.vectors[0], embedded.vectors[1])
    assert embedded.tokens > 0


async def test_vectors_that_come_in_another_order_find_their_texts(models: ModelApi, faults: Faults) -> None:
    """The reply's index decides, not its position."""
    straight = await embed(models, "a gate", "a wheel", "a river")
    async with faults.during("embeddings", "shuffled"):
        assert np.array_equal(straight, await embed(models, "a gate", "a wheel", "a river"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("wrong_dimensions", CallFailed),
        ("nan", CallFailed),
        ("empty", CallFailed),
        ("short", CallFailed),
        ("malformed", CallFailed),
        ("cut", ModelAway),
        ("drop", ModelAway),
        ("400", Refused),
        ("401", PoolPaused),
        ("429", RateLimited),
        ("500", ModelAway),
        ("insufficient_quota", PoolPaused),
    ],
)
async def test_every_bad_reply_is_an_error_of_ours(
    models: ModelApi, faults: Faults, kind: str, expected: type[PenstockError]
) -> None:
    """Whatever an embeddings endpoint does wrong, no vector comes out, nothing is retried, and the error says what to do."""
    async with faults.during("embeddings", kind):
        with pytest.raises(expected):
            await embed(models, "one", "two")
        assert await faults.requests("embeddings") == 1


async def test_a_server_that_hangs_is_given_up_in_time(model_server: ModelServer, faults: Faults) -> None:
    """The timeout ends a call that is never answered."""
    async with (
        faults.during("embeddings", "hang"),
        ModelApi.open(model_server.base_url, model_server.api_key, timeout=0.3) as models,
    ):
        with pytest.raises(ModelAway):
            await embed(models, "one")


async def test_a_wrong_vector_names_its_text() -> None:
    """The index of the text at fault is in the error, so that its batch can go on without it."""
    good, bad = np.array([3.0, 4.0], dtype="<f4"), np.array([np.nan, 1.0], dtype="<f4")
    data = [
        {"index": index, "embedding": base64.b64encode(one.tobytes()).decode()}
        for index, one in enumerate([good, bad])
    ]

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, orjson.dumps({"data": data, "usage": {}}), content_type="application/json")

    async with (
        raw_server(script) as server,
        ModelApi.open(f"http://127.0.0.1:{server.port}/v1", "k") as models,
    ):
        with pytest.raises(CallFailed) as caught:
            await models.embed(["a", "b"], model="m", dimensions=2)
        assert caught.value.field == "input[1]"
        data.pop()
        embedded = await models.embed(["a"], model="m", dimensions=2)
        assert np.allclose([[0.6, 0.8]], embedded.vectors)


async def test_a_server_without_base64_is_understood() -> None:
    """Float lists are read too; vectors that are not of unit length are brought to it."""

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b'{"data": [{"embedding": [0, 2]}]}', content_type="application/json")

    async with raw_server(script) as server, ModelApi.open(f"http://127.0.0.1:{server.port}", "k") as models:
        embedded = await models.embed(["a"], model="m", dimensions=2)
        assert np.array_equal([[0, 1]], embedded.vectors)


async def test_a_whole_reply(models: ModelApi) -> None:
    """Text, model, tokens and finish reason of a completion."""
    reply = await models.chat(MESSAGES, model="local-chat", max_tokens=50)
    assert ("The gate opens at noon. [1]", "stop", "local-chat") == (
        reply.text,
        reply.finish_reason,
        reply.model,
    )
    assert reply.tokens_in > reply.tokens_out > 0


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only a proxy leads out, calls go through it; loopback never does."""

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b'{"data": [{"embedding": [0, 2]}]}', content_type="application/json")

    async with raw_server(script) as server:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with ModelApi.open("http://model.invalid/v1", "secret") as models:
            await models.embed(["a"], model="m", dimensions=2)
    [head] = server.heads
    assert head.startswith("POST http://model.invalid/v1/embeddings ")
    assert "authorization: bearer secret" in head.lower()


async def test_what_is_known_of_a_model(models: ModelApi, faults: Faults) -> None:
    """A model has its end announced, or does not exist."""
    await faults.shutdown_date("local-chat", "2031-02-03")
    known = await models.model("local-chat")
    await faults.shutdown_date("local-chat", None)
    assert known is not None
    assert "2031-02-03" == str(known.shutdown_date)
    assert await models.model("no-such-model") is None


async def test_a_missing_key_is_said_before_anything_is_sent() -> None:
    """No key: an error that names the setting."""
    with pytest.raises(Misconfigured) as caught:
        async with open_client(None, None):
            pass
    assert caught.value.field == "OPENAI_API_KEY"


async def test_the_environment_does_not_reach_the_client(
    monkeypatch: pytest.MonkeyPatch, model_server: ModelServer
) -> None:
    """Proxies, organisations and base URLs of the environment change nothing about a client that we open."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "hostile")
    async with open_client(model_server.base_url, model_server.api_key) as client:
        assert not {"OpenAI-Organization", "OpenAI-Project"} & {
            name for name, value in client.default_headers.items() if value
        }
        assert (await client.models.list()).data

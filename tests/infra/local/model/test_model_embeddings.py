from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from starlette.requests import Request
from tokenizers import Tokenizer as VendorTokenizer

from infra.local.model.embeddings import Embeddings
from infra.local.model.reply import Ask
from infra.local.model.vectors import Encoder, Vectors
from infra.local.model.weights import find_weights, load_table

if TYPE_CHECKING:
    from infra.local.model.faults_client import Faults

MODEL = "local-embed-256"


async def test_an_embedding_is_the_unit_mean_of_the_token_rows(client: AsyncOpenAI) -> None:
    """What the server sends is what the published weights say, to seven digits."""
    files = find_weights()
    ids = (
        VendorTokenizer.from_file(str(files.tokenizer))
        .encode("The pump runs at 4 bar.", add_special_tokens=False)
        .ids
    )
    mean = load_table(files.table)[ids].mean(axis=0)
    got = await client.embeddings.create(model=MODEL, input="The pump runs at 4 bar.")
    assert np.allclose(mean / np.linalg.norm(mean), got.data[0].embedding, atol=1e-6)
    assert len(ids) == got.usage.prompt_tokens


async def test_both_encodings_carry_the_same_vectors_in_order(client: AsyncOpenAI) -> None:
    """base64 holds little-endian 32-bit floats; the order is that of the inputs."""
    texts = ["alpha", "beta", "gamma delta"]
    floats = await client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    coded = await client.embeddings.create(model=MODEL, input=texts, encoding_format="base64")
    decoded = [np.frombuffer(base64.b64decode(str(item.embedding)), dtype="<f4") for item in coded.data]
    assert [0, 1, 2] == [item.index for item in floats.data]
    assert np.allclose([item.embedding for item in floats.data], decoded, atol=1e-7)


@pytest.mark.parametrize("dimensions", [64, 128, 256])
async def test_dimensions_shorten_and_scale_again(client: AsyncOpenAI, dimensions: int) -> None:
    """A shortened vector is the head of the long one at length one."""
    long = (await client.embeddings.create(model=MODEL, input="a text")).data[0].embedding
    short = (
        (await client.embeddings.create(model=MODEL, input="a text", dimensions=dimensions)).data[0].embedding
    )
    head = np.array(long[:dimensions])
    assert np.allclose(head / np.linalg.norm(head), short, atol=1e-6)


async def test_token_arrays_are_the_same_as_their_text(client: AsyncOpenAI, encoder: Encoder) -> None:
    """One array of ids, and arrays of ids, are embedded as the text that they came from."""
    ids = encoder.tokenizer.encode(["one text", "another text"])
    by_text = await client.embeddings.create(model=MODEL, input=["one text", "another text"])
    by_ids = await client.embeddings.create(model=MODEL, input=ids)
    alone = await client.embeddings.create(model=MODEL, input=ids[0])
    assert [item.embedding for item in by_text.data] == [item.embedding for item in by_ids.data]
    assert by_text.data[0].embedding == alone.data[0].embedding
    assert by_text.usage == by_ids.usage


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": ["x"] * 2049}, "input", "array_above_max_length"),
        ({"input": ["word " * 8193]}, "input", "context_length_exceeded"),
        ({"input": ["word " * 6000] * 51}, "input", "max_tokens_per_request"),
        ({"input": ""}, "input", "empty_string"),
        ({"input": ["fine", ""]}, "input", "empty_string"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [[]]}, "input", "empty_string"),
        ({"input": [1, 32_000]}, "input", "invalid_token"),
        ({"input": [["a"]]}, "input[0]", "invalid_type"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": "x", "dimensions": 257}, "dimensions", "invalid_value"),
        ({"input": "x", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"input": "x", "extra": 1}, "extra", "unknown_parameter"),
    ],
)
async def test_broken_limits_are_refused_as_openai_does(
    client: AsyncOpenAI, body: dict[str, Any], param: str, code: str
) -> None:
    """Each limit answers 400 and names the parameter and the rule."""
    with pytest.raises(BadRequestError) as caught:
        await client.post("/embeddings", body={"model": MODEL, **body}, cast_to=object)
    error = caught.value.body
    assert isinstance(error, dict)
    assert ("invalid_request_error", param, code) == (error["type"], error["param"], error["code"])


async def test_the_limits_themselves_are_allowed(client: AsyncOpenAI) -> None:
    """2048 inputs and 8192 tokens in one input pass."""
    many = await client.embeddings.create(model=MODEL, input=["x"] * 2048)
    long = await client.embeddings.create(model=MODEL, input=[[5] * 8192])
    assert (2048, 8192) == (len(many.data), long.usage.total_tokens)


@pytest.mark.parametrize("model", ["text-embedding-3-small", "local-chat", "nonsense"])
async def test_an_unknown_model_is_not_found(client: AsyncOpenAI, model: str) -> None:
    """OpenAI's own names are not taken: a wrong setting shows at once."""
    with pytest.raises(NotFoundError) as caught:
        await client.embeddings.create(model=model, input="x")
    assert caught.value.code == "model_not_found"


async def test_calls_inputs_and_tokens_are_counted(client: AsyncOpenAI, faults: Faults) -> None:
    """A test can prove how many texts were paid for."""
    usage = (await client.embeddings.create(model=MODEL, input=["one", "two", "three"])).usage
    await client.embeddings.create(model=MODEL, input="four")
    count = (await faults.calls())["embeddings"]
    assert (2, 2, 4) == (count["requests"], count["served"], count["inputs"])
    assert count["tokens"] > usage.total_tokens
    assert {MODEL: 2} == await faults.models()


class HeldEncoder(Encoder):
    """Embeds a batch only when it is let go."""

    let_go: threading.Event

    def embed_ids(self, rows: Sequence[Sequence[int]]) -> Vectors:
        """Wait before a batch, not before a single text."""
        if len(rows) > 1:
            self.let_go.wait(60)
        return super().embed_ids(rows)


async def test_a_batch_leaves_the_event_loop_free() -> None:
    """A short request is answered while a long one is being embedded."""
    encoder = HeldEncoder.load()
    encoder.let_go = threading.Event()
    embeddings = Embeddings(encoder)

    def ask(given: object) -> Ask:
        return Ask(Request({"type": "http"}), orjson.dumps({"model": MODEL, "input": given}), None)

    batch = asyncio.create_task(embeddings.create(ask(["some words " * 50] * 10)))
    short = await embeddings.create(ask("x"))
    assert (1, False) == (short.usage.inputs, batch.done())
    encoder.let_go.set()
    assert 10 == (await batch).usage.inputs
    embeddings.close()

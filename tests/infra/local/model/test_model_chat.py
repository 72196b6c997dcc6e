from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

if TYPE_CHECKING:
    from infra.local.model.faults_client import Faults

SYSTEM = "Answer only from the passages and cite them."
ASKED = (
    '<passage id="1" title="Pump">\nIts working pressure is 4 bar. It is green.\n</passage>\n'
    '<passage id="2" title="Cats">\nCats sleep for most of the day.\n</passage>\n\n'
    "Question: What is the working pressure of the pump?"
)
ANSWER = "Its working pressure is 4 bar. [1]"


async def complete(client: AsyncOpenAI, text: str = ASKED, **options: Any) -> ChatCompletion:
    """One completion."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    return await client.chat.completions.create(**{"model": "local-chat", "messages": messages, **options})  # type: ignore[no-any-return]


async def streamed(client: AsyncOpenAI, **options: Any) -> list[ChatCompletionChunk]:
    """The chunks of a streamed completion."""
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": ASKED},
    ]
    stream = await client.chat.completions.create(
        **{"model": "local-chat", "messages": messages, "stream": True, **options}
    )
    return [chunk async for chunk in stream]


async def test_an_answer_quotes_and_cites(client: AsyncOpenAI) -> None:
    """A whole reply has the answer, the reason why it stopped, and its usage."""
    reply = await complete(client)
    assert (ANSWER, "stop") == (reply.choices[0].message.content, reply.choices[0].finish_reason)
    assert reply.usage is not None
    assert reply.usage.prompt_tokens + reply.usage.completion_tokens == reply.usage.total_tokens
    assert reply.usage.prompt_tokens > 50


async def test_a_stream_is_the_same_answer_in_pieces(client: AsyncOpenAI) -> None:
    """Role first, then words, then the finish reason."""
    chunks = await streamed(client)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "assistant" == deltas[0].role
    assert ANSWER == "".join(delta.content or "" for delta in deltas)
    assert len(deltas) > 5
    assert "stop" == chunks[-1].choices[0].finish_reason
    assert 1 == len({chunk.id for chunk in chunks})


async def test_a_stream_reports_usage_when_asked(client: AsyncOpenAI) -> None:
    """Usage comes in a last chunk without choices, the same as that of a whole reply."""
    whole = (await complete(client)).usage
    chunks = await streamed(client, stream_options={"include_usage": True})
    assert [] == chunks[-1].choices
    assert whole == chunks[-1].usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_nothing_fitting_is_not_known(client: AsyncOpenAI) -> None:
    """Exactly this sentence, without a citation."""
    reply = await complete(client, ASKED.replace("the working pressure of the pump", "the capital of France"))
    assert "I don't know." == reply.choices[0].message.content


async def test_a_token_limit_ends_the_answer_at_a_word(client: AsyncOpenAI) -> None:
    """The finish reason is then `length`."""
    reply = await complete(client, max_completion_tokens=5)
    assert reply.usage is not None
    assert "length" == reply.choices[0].finish_reason
    assert ANSWER.startswith(reply.choices[0].message.content or "-")
    assert 0 < reply.usage.completion_tokens <= 5


async def test_a_stop_sequence_ends_the_answer_before_it(client: AsyncOpenAI) -> None:
    """The stop sequence itself is not said."""
    reply = await complete(client, stop=[" [1]"])
    assert ANSWER.removesuffix(" [1]") == reply.choices[0].message.content


async def test_a_schema_of_answer_and_citations_is_filled(client: AsyncOpenAI) -> None:
    """The quote stands verbatim in the cited passage."""
    schema = {
        "type": "object",
        "properties": {
            "answer": {"type": "string"},
            "citations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"passage": {"type": "integer"}, "quote": {"type": "string"}},
                    "required": ["passage", "quote"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["answer", "citations"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "cited", "schema": schema, "strict": True}}
    said = json.loads((await complete(client, response_format=wanted)).choices[0].message.content or "")
    expected = {
        "answer": "Its working pressure is 4 bar.",
        "citations": [{"passage": 1, "quote": "Its working pressure is 4 bar."}],
    }
    assert expected == said


async def test_text_parts_are_read_as_one_text(client: AsyncOpenAI) -> None:
    """Content may be a list of text parts."""
    parts = [{"type": "text", "text": part} for part in ASKED.split("\n\n")]
    messages = [{"role": "user", "content": parts}]
    assert ANSWER == (await complete(client, messages=messages)).choices[0].message.content


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
            "unsupported_parameter",
        ),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"stop": ["a"] * 5}, "stop", "invalid_type"),
        ({"extra_body": {"colour": "red"}}, "colour", "unknown_parameter"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"$ref": "#"}},
                }
            },
            "response_format",
            "invalid_json_schema",
        ),
    ],
)
async def test_a_bad_request_names_its_parameter(
    client: AsyncOpenAI, options: dict[str, Any], param: str, code: str | None
) -> None:
    """What is wrong, or not supported here, is refused and not guessed."""
    with pytest.raises(BadRequestError) as caught:
        await complete(client, **options)
    error = caught.value.body
    assert isinstance(error, dict)
    assert (param, code) == (error["param"], error["code"])


@pytest.mark.parametrize("model", ["gpt-5.6", "ft:local-chat:local::missing", "local-embed-256"])
async def test_an_unknown_chat_model_is_not_found(client: AsyncOpenAI, model: str) -> None:
    """So is a tuned model that was deleted."""
    with pytest.raises(NotFoundError) as caught:
        await complete(client, model=model)
    assert caught.value.code == "model_not_found"


async def test_tokens_are_counted_as_reported(client: AsyncOpenAI, faults: Faults) -> None:
    """The counts of the server are the usage that its replies report."""
    usage = (await complete(client)).usage
    await streamed(client)
    count = (await faults.calls())["chat"]
    assert usage is not None
    assert (2, 2 * usage.total_tokens) == (count["served"], count["tokens"])

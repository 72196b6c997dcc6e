"""Texts and messages go to the model API here and come back as vectors, replies and streams, or as our own errors.

Replies are read as raw bytes: the SDK's own parsing of 2048 vectors blocks the event loop for 0.4 to 13 s, and its
models of stream chunks cost more than the chunks. Nothing here is retried: embeddings and chat are paid POSTs, and
the engine waits better than a client does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import orjson

from infra.governor import Governor, Permit
from infra.governor_rules import Priority
from infra.llm_errors import api_error, status_error, translated
from infra.llm_replies import Delta, Embedded, Reply, StreamReader, read_embeddings, read_reply
from schemas.errors import CallFailed, Misconfigured, Refused, Unavailable

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = [
    "Delta",
    "Embedded",
    "ModelApi",
    "ModelInfo",
    "Priority",
    "Reply",
    "api_error",
    "open_client",
    "status_error",
    "translated",
]

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_TIMEOUT = 5.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the provider lists it.

    Attributes:
        shutdown_date: the day on which the provider ends it, if announced.
    """

    name: str
    owned_by: str | None
    shutdown_date: date | None


@asynccontextmanager
async def open_client(
    base_url: str | None, api_key: str | None, *, timeout: float = 60.0, key_setting: str = "OPENAI_API_KEY"
) -> AsyncIterator[AsyncOpenAI]:
    """Open the SDK's client: no retries of its own, and nothing that it would read from the environment by itself.

    Args:
        base_url: any OpenAI-compatible server; OpenAI's own when None.
        api_key: what is sent as the bearer token.
        timeout: seconds for the whole of a plain call, and between two chunks of a stream.
        key_setting: the setting that an error names when the key is missing.
    """
    if not api_key:
        raise Misconfigured(f"{key_setting} is not set", field=key_setting, fix=f"set {key_setting}")
    import httpx2  # noqa: PLC0415 - costs a second and 49 MB: only the pools that call a model pay
    import openai  # noqa: PLC0415

    address = base_url or OPENAI_URL
    # A proxy is never right for loopback, whatever HTTP_PROXY says.
    http = openai.DefaultAsyncHttpxClient(
        trust_env=urlsplit(address).hostname not in LOOPBACK,
        timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
    )
    async with openai.AsyncOpenAI(
        base_url=address,
        api_key=api_key,
        organization="",
        project="",
        webhook_secret="",
        max_retries=0,
        timeout=http.timeout,
        http_client=http,
    ) as client:
        yield client


class ModelApi:
    """An OpenAI-compatible server: embeddings, chat, streams, and what is known of a model."""

    __slots__ = ("_client", "_governor")

    def __init__(self, client: AsyncOpenAI, governor: Governor | None = None) -> None:
        """Speak through a client that somebody else opened; at the pace of the governor, if there is one."""
        self._client = client
        self._governor = governor

    @classmethod
    def open(
        cls,
        base_url: str | None,
        api_key: str | None,
        *,
        timeout: float = 60.0,
        governor: Governor | None = None,
    ) -> AbstractAsyncContextManager[Self]:
        """Open a connection pool to a server; see `open_client`.

        Raises:
            Misconfigured: there is no key.
        """

        @asynccontextmanager
        async def opened() -> AsyncIterator[Self]:
            async with open_client(base_url, api_key, timeout=timeout) as client:
                yield cls(client, governor)

        return opened()

    def _call(self, model: str, tokens: int, priority: Priority) -> AbstractAsyncContextManager[Permit]:
        """Wait for the governor, if there is one."""
        if self._governor is None:
            return nullcontext(Permit("", tokens))
        return self._governor.call(model, tokens, priority)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str,
        dimensions: int,
        priority: Priority = Priority.QUESTION,
        tokens: int | None = None,
    ) -> Embedded:
        """Embed up to 2048 texts, none of them empty, in one call.

        Args:
            texts: what to embed; the provider's limits on tokens are the caller's to keep.
            model: the embedding model, as the provider names it.
            dimensions: the width asked for; the reply is held against it.
            priority: who goes first when the provider's limits are reached.
            tokens: of all texts, where the caller has estimated them.

        Returns:
            vectors: float32[n, dimensions], unit length, in the order of the texts.

        Raises:
            CallFailed: the reply is not what was asked for; `field` names the input where it is known.
            PenstockError: see `infra.llm_errors`. A Refused of many texts is for the caller to divide.
        """
        import httpx2  # noqa: PLC0415 - see open_client

        estimated = sum(map(len, texts)) // 4 if tokens is None else tokens
        asked = {"input": list(texts), "model": model, "dimensions": dimensions, "encoding_format": "base64"}
        async with self._call(model, estimated, priority) as permit:
            with translated():
                # Not by `embeddings.create`: it looks into every text, which costs more than to send and read it.
                reply = await self._client.post("/embeddings", cast_to=httpx2.Response, body=asked)
            permit.heard(reply.headers)
            embedded = read_embeddings(reply.content, count=len(texts), dimensions=dimensions)
            permit.used = embedded.tokens
        return embedded

    async def chat(
        self,
        messages: Messages,
        *,
        model: str,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        priority: Priority = Priority.QUESTION,
    ) -> Reply:
        """Ask for one whole reply.

        Raises:
            CallFailed: the reply has no text, or ended without a finish reason.
            Refused: the provider's content filter cut it off, or the request is not acceptable.
            PenstockError: see `infra.llm_errors`.
        """
        async with self._call(model, _expected(messages, max_tokens), priority) as permit:
            with translated():
                reply = await self._client.chat.completions.with_raw_response.create(
                    **_request(messages, model, response_format, max_tokens, temperature)
                )
                body = reply.http_response.content
            permit.heard(reply.http_response.headers)
        return read_reply(body)

    async def stream(
        self,
        messages: Messages,
        *,
        model: str,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """Ask for a reply piece by piece. Closing the iterator ends the call.

        Yields:
            Deltas with text; the last one carries the finish reason, the model and the tokens.

        Raises:
            CallFailed: the stream was cut, or ended without a finish reason: what came is not an answer.
            PenstockError: see `infra.llm_errors`; raised before the first delta.
        """
        reader = StreamReader()
        request = _request(messages, model, response_format, max_tokens, temperature)
        async with (
            self._call(model, _expected(messages, max_tokens), Priority.QUESTION) as permit,
            AsyncExitStack() as held,
        ):
            with translated():
                response = await held.enter_async_context(
                    self._client.chat.completions.with_streaming_response.create(
                        **request, stream=True, stream_options={"include_usage": True}
                    )
                )
            permit.heard(response.http_response.headers)
            try:
                with translated():
                    async for chunk in response.http_response.aiter_bytes():
                        for delta in reader.feed(chunk):
                            yield delta
                        if reader.ended:
                            break
            except Unavailable as error:
                raise CallFailed(f"the stream was cut: {error.message}") from None
            yield reader.finish()

    async def model(self, name: str) -> ModelInfo | None:
        """What the provider says of a model; None when it does not exist or is not ours to use.

        A read without a price, so the SDK may try it once more.
        """
        client = self._client.with_options(max_retries=1)
        try:
            with translated():
                reply = await client.models.with_raw_response.retrieve(name)
                return _model_info(name, orjson.loads(reply.http_response.content))
        except Refused as error:
            if error.provider_status in {403, 404}:
                return None
            raise


def _model_info(name: str, body: Any) -> ModelInfo:
    if not isinstance(body, dict):
        raise CallFailed("the model API's description of a model is not an object")
    owner, ends = body.get("owned_by"), body.get("shutdown_date")
    return ModelInfo(
        name=name,
        owned_by=owner if isinstance(owner, str) else None,
        shutdown_date=date.fromisoformat(ends[:10]) if isinstance(ends, str) and ends else None,
    )


def _expected(messages: Messages, max_tokens: int | None) -> int:
    """Tokens that a chat call counts for at the provider: the prompt's, estimated, and all that may come back."""
    return sum(len(str(message.get("content") or "")) for message in messages) // 4 + (max_tokens or 256)


def _request(
    messages: Messages,
    model: str,
    response_format: Mapping[str, Any] | None,
    max_tokens: int | None,
    temperature: float | None,
) -> dict[str, Any]:
    """The arguments that were given; a parameter that is absent cannot be refused by a model that lacks it.

    All but the model go around the SDK's walk through the types of a request, which costs more than the call.
    """
    optional = {
        "response_format": response_format,
        "max_completion_tokens": max_tokens,
        "temperature": temperature,
    }
    given = {name: value for name, value in optional.items() if value is not None}
    return {"messages": [], "model": model, "extra_body": {"messages": list(messages), **given}}

"""Texts and messages go to the model API here and come back as vectors, replies and streams, or as our own errors.

Replies are read as raw bytes: the SDK's own parsing of 2048 vectors blocks the event loop for 0.4 to 13 s, and its
models of stream chunks cost more than the chunks. Nothing here is retried: embeddings and chat are paid POSTs, and
the engine waits better than a client does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from infra.governor import Governor, Permit
from infra.governor_rules import Priority
from infra.llm_errors import api_error, status_error, translated
from infra.llm_models import ModelInfo, describe
from infra.llm_replies import Delta, Embedded, Reply, StreamReader, read_embeddings, read_reply
from infra.llm_wire import CONNECT_TIMEOUT, LOOPBACK, Wire, drain
from schemas.errors import CallFailed, Misconfigured, Unavailable

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

Messages = Sequence[Mapping[str, Any]]


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

    __slots__ = ("_client", "_governor", "_timeout", "_wire")

    def __init__(self, client: AsyncOpenAI, wire: Wire, timeout: float, governor: Governor | None) -> None:
        """Made by `open`."""
        self._client = client
        self._wire = wire
        self._timeout = timeout
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
        """Open a connection pool to a server; see `open_client`. Calls go at the pace of the governor, if there is one.

        Raises:
            Misconfigured: there is no key.
        """

        @asynccontextmanager
        async def opened() -> AsyncIterator[Self]:
            async with open_client(base_url, api_key, timeout=timeout) as client:
                wire = Wire(client, timeout)
                try:
                    yield cls(client, wire, timeout, governor)
                finally:
                    await wire.aclose()

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
        estimated = sum(map(len, texts)) // 4 if tokens is None else tokens
        asked = {"input": list(texts), "model": model, "dimensions": dimensions, "encoding_format": "base64"}
        async with self._call(model, estimated, priority) as permit:
            content = await self._whole("/embeddings", asked, permit)
            embedded = read_embeddings(content, count=len(texts), dimensions=dimensions)
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
            request = _request(messages, model, response_format, max_tokens, temperature)
            content = await self._whole("/chat/completions", request, permit)
        return read_reply(content)

    async def _whole(self, path: str, request: Mapping[str, Any], permit: Permit) -> bytes:
        """Make a call whose reply comes in one piece, within the timeout."""
        with translated():
            async with asyncio.timeout(self._timeout), self._wire.post(path, request) as heard:
                permit.heard(heard.headers)
                return await heard.whole()

    async def stream(
        self,
        messages: Messages,
        *,
        model: str,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        rest: float = 0.0,
    ) -> AsyncGenerator[Delta, None]:
        """Ask for a reply piece by piece. Closing the iterator ends the call.

        Args beyond those of `chat`: `rest`, seconds for which what follows the first words is gathered into one piece.

        Yields:
            Deltas with text; the last one carries the finish reason, the model and the tokens.

        Raises:
            CallFailed: the stream was cut, or ended without a finish reason: what came is not an answer.
            PenstockError: see `infra.llm_errors`; raised before the first delta.
        """
        reader = StreamReader()
        request = {
            **_request(messages, model, response_format, max_tokens, temperature),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with (
            self._call(model, _expected(messages, max_tokens), Priority.QUESTION) as permit,
            AsyncExitStack() as held,
        ):
            with translated():
                heard = await held.enter_async_context(self._wire.post("/chat/completions", request))
            permit.heard(heard.headers)
            try:
                with translated():
                    wait = 0.0
                    while not reader.ended and (part := await heard.part(wait)):
                        text = "".join(reader.feed(part))
                        if text:
                            yield Delta(text=text, model=reader.model)
                            wait = rest
                    if reader.ended:
                        await drain(heard)
            except Unavailable as error:
                raise CallFailed(f"the stream was cut: {error.message}") from None
            last = reader.finish()
        # Outside, because whoever has the last delta stops listening: the connection stays for the next call.
        yield last

    async def model(self, name: str) -> ModelInfo | None:
        """What the provider says of a model; see `describe`."""
        return await describe(self._client, name)


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
    """The arguments that were given; a parameter that is absent cannot be refused by a model that lacks it."""
    optional = {
        "response_format": response_format,
        "max_completion_tokens": max_tokens,
        "temperature": temperature,
    }
    given = {name: value for name, value in optional.items() if value is not None}
    return {"model": model, "messages": list(messages), **given}

"""A call to the model API goes out here as bytes and its reply comes back as bytes, on connections that stay open.

The SDK says where to and in whose name: address, key and headers. How it builds a request, and how its HTTP client reads
a reply, cost more than all else that a question costs a worker (docs/decisions/0007-answers.md), so embeddings and chat
go around both. Where a proxy leads out, httpx2 carries the same bytes through it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import orjson

from infra.llm_errors import status_error

if TYPE_CHECKING:
    import httpcore2
    import httpx2
    from openai import AsyncOpenAI

    from infra.egress.stream import Line

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
CONNECT_TIMEOUT = 5.0
KEPT = 64
"""Connections that wait for their next call, at most."""
KEPT_SECONDS = 30.0
"""For which one waits: a new one costs a question its handshake."""
DRAIN = 0.1
"""Seconds; a server that says no end after its last event is hung up on."""
MAX_ERROR = 64 * 1024
"""Bytes of an error that are read."""


def behind_proxy(address: str) -> bool:
    """Whether the environment names a proxy for an address; one is never right for loopback."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    named = parts.scheme in proxies or "all" in proxies
    return host not in LOOPBACK and named and not urllib.request.proxy_bypass(host)


@dataclass(frozen=True, slots=True)
class Heard:
    """A reply with a good status; its body is read within the block that `Wire.post` opens.

    Attributes:
        headers: by lower-case name.
        line: the connection, where it is our own.
    """

    headers: Mapping[str, str]
    body: AsyncGenerator[bytes, None]
    line: Line | None = None

    def rest(self, seconds: float) -> None:
        """Let what comes from now on gather for so long before each look at it."""
        if self.line is not None:
            self.line.rest = seconds

    async def drain(self) -> None:
        """Read what follows the end of the message, so that the connection is fit for the next one; wait for it shortly."""
        self.rest(0.0)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                async for _ in self.body:
                    pass

    async def whole(self) -> bytes:
        """The whole body."""
        return b"".join([part async for part in self.body])


class Wire:
    """Posts JSON to one model API."""

    def __init__(self, client: AsyncOpenAI, timeout: float) -> None:
        """Speak as an open client of the SDK does.

        Args:
            client: decides address, key and headers.
            timeout: seconds for a connection, and between two pieces of a reply.
        """
        import httpcore2  # noqa: PLC0415 - only the pools that call a model pay for the import
        import httpx2  # noqa: PLC0415

        from infra.egress.kept import Kept  # noqa: PLC0415 - it imports httpcore2

        self._url = str(client.base_url).rstrip("/")
        self._origin, self._path, host = _address(self._url)
        said = {**client.default_headers, **client.auth_headers}
        self._headers = {name: value for name, value in said.items() if isinstance(value, str)}
        self._raw = [(b"Host", host)] + [
            (name.encode(), value.encode()) for name, value in self._headers.items()
        ]
        self._http = httpx2.AsyncClient(timeout=timeout) if behind_proxy(self._url) else None
        self._timeout = timeout
        # Reading the system's authorities takes a tenth of a second.
        secure = self._origin[0] == "https"
        tls = httpcore2.default_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.set_alpn_protocols(["http/1.1"])
        self._kept = Kept(_backend(), tls, KEPT, KEPT_SECONDS)

    async def aclose(self) -> None:
        """Close the connections that wait."""
        await self._kept.aclose()
        if self._http is not None:
            await self._http.aclose()

    def post(self, path: str, body: Mapping[str, Any]) -> AbstractAsyncContextManager[Heard]:
        """Send one request and read its reply within the block; leaving it early hangs up.

        Raises:
            PenstockError: the status is not a good one, see `infra.llm_errors.status_error`.
            TimeoutError, httpcore2.NetworkError, httpx2.TransportError …: as `infra.llm_errors` knows them.
        """
        try:
            content = orjson.dumps(body)
        except orjson.JSONEncodeError:  # half a surrogate pair, which JSON can escape
            content = json.dumps(body).encode()
        return self._direct(path, content) if self._http is None else self._proxied(self._http, path, content)

    @asynccontextmanager
    async def _direct(self, path: str, content: bytes) -> AsyncIterator[Heard]:
        import httpcore2  # noqa: PLC0415 - see __init__

        scheme, host, port = self._origin
        if scheme not in {"http", "https"}:
            raise httpcore2.UnsupportedProtocol
        request = httpcore2.Request(
            "POST",
            httpcore2.URL(
                scheme=scheme.encode(), host=host.encode(), port=port, target=self._path + path.encode()
            ),
            headers=[*self._raw, (b"Content-Length", str(len(content)).encode())],
            content=content,
        )
        async with self._kept.take(self._origin, min(self._timeout, CONNECT_TIMEOUT)) as connection:
            async with asyncio.timeout(self._timeout):
                response = await connection.handle_async_request(request)
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
            }
            assert isinstance(response.stream, AsyncIterable)
            async with aclosing(self._timed(response.stream)) as body:
                await _check(response.status, headers, body)
                line = response.extensions["network_stream"]
                try:
                    yield Heard(headers, body, line)
                finally:
                    line.rest = 0.0
            await response.aclose()

    @asynccontextmanager
    async def _proxied(self, http: httpx2.AsyncClient, path: str, content: bytes) -> AsyncIterator[Heard]:
        request = http.build_request("POST", self._url + path, content=content, headers=self._headers)
        response = await http.send(request, stream=True)
        try:
            async with aclosing(self._timed(response.aiter_bytes())) as body:
                await _check(response.status_code, response.headers, body)
                yield Heard(response.headers, body)
        finally:
            await response.aclose()

    async def _timed(self, parts: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """The pieces of a body, none of which is waited for longer than the timeout."""
        async with aclosing(cast("AsyncGenerator[bytes, None]", aiter(parts))) as coming:
            while True:
                async with asyncio.timeout(self._timeout):
                    part = await anext(coming, None)
                if part is None:
                    return
                yield part


def _address(url: str) -> tuple[tuple[str, str, int], bytes, bytes]:
    """Origin, path and Host header of a base URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (
        (parts.scheme, parts.hostname or "", port),
        parts.path.encode(),
        parts.netloc.rpartition("@")[2].encode(),
    )


def _backend() -> httpcore2.AsyncNetworkBackend:
    """Connects by name, on streams of our own event loop."""
    import httpcore2  # noqa: PLC0415 - see Wire

    from infra.egress.stream import Line  # noqa: PLC0415 - it imports httpcore2

    class Dialler(httpcore2.AsyncNetworkBackend):
        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
        ) -> httpcore2.AsyncNetworkStream:
            del local_address, socket_options
            return await Line.connect(host, port, timeout)

        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

    return Dialler()


async def _check(status: int, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> None:
    """Raise unless the status is a good one: with what the provider says of its code and parameter."""
    if 200 <= status < 300:
        return
    said = bytearray()
    async for part in body:
        said += part
        if len(said) > MAX_ERROR:
            break
    error = _error_in(bytes(said))
    raise status_error(status, error.get("code") or error.get("type"), error.get("param"), headers)


def _error_in(body: bytes) -> Mapping[str, Any]:
    """What a provider says of an error; servers that know no envelope put it on top."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = reply.get("error", reply) if isinstance(reply, dict) else None
    return error if isinstance(error, dict) else {}

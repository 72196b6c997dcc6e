"""A call to the model API goes out here as bytes and its reply comes back as bytes, on connections that stay open.

The SDK says where to and in whose name: address, key and headers. How it builds a request, and how its HTTP client reads
a reply, cost more than all else that a question costs a worker (docs/decisions/0007-answers.md), so embeddings and chat
go around both. Where a proxy leads out, httpx2 carries the same bytes through it.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import orjson

from infra.llm_errors import status_error
from infra.llm_line import Line

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

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
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def behind_proxy(address: str) -> bool:
    """Whether the environment names a proxy for an address; one is never right for loopback."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    named = parts.scheme in proxies or "all" in proxies
    return host not in LOOPBACK and named and not urllib.request.proxy_bypass(host)


class Heard(Protocol):
    """A reply with a good status; its body is read within the block that `Wire.post` opens."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""
        ...

    async def part(self, rest: float = 0.0) -> bytes:
        """What has come of the body since, nothing at its end; `rest` lets it gather for so many seconds."""
        ...

    async def whole(self) -> bytes:
        """All of the body."""
        ...


@dataclass(frozen=True, slots=True)
class Direct:
    """A reply on a connection of our own."""

    headers: Mapping[str, str]
    line: Line

    async def part(self, rest: float = 0.0) -> bytes:
        """As `Heard`."""
        return await self.line.part(rest)

    async def whole(self) -> bytes:
        """As `Heard`."""
        return await self.line.whole()


@dataclass(frozen=True, slots=True)
class Proxied:
    """A reply through httpx2."""

    headers: Mapping[str, str]
    body: AsyncGenerator[bytes, None]
    timeout: float

    async def part(self, rest: float = 0.0) -> bytes:
        """As `Heard`."""
        await asyncio.sleep(rest)
        async with asyncio.timeout(self.timeout):
            return await anext(self.body, b"")

    async def whole(self) -> bytes:
        """As `Heard`."""
        parts: list[bytes] = []
        while part := await self.part():
            parts.append(part)
        return b"".join(parts)


async def drain(heard: Heard) -> None:
    """Read what follows the end of the message, so that the connection is fit for the next one; wait for it shortly."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN):
            await heard.whole()


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

        self._url = str(client.base_url).rstrip("/")
        self._scheme, self._host, self._port, path, host = _address(self._url)
        said = {**client.default_headers, **client.auth_headers}
        self._headers = {name: value for name, value in said.items() if isinstance(value, str)}
        self._path = path
        self._head = "".join(
            f"{name}: {value}\r\n" for name, value in {"Host": host, **self._headers}.items()
        ).encode()
        self._http = httpx2.AsyncClient(timeout=timeout) if behind_proxy(self._url) else None
        self._timeout = timeout
        self._tls = httpcore2.default_ssl_context() if self._scheme == "https" else None
        if self._tls is not None:
            self._tls.set_alpn_protocols(["http/1.1"])
        self._waiting: list[Line] = []

    async def aclose(self) -> None:
        """Close the connections that wait."""
        for line in self._waiting:
            line.hang_up()
        self._waiting.clear()
        if self._http is not None:
            await self._http.aclose()

    def post(self, path: str, body: Mapping[str, Any]) -> AbstractAsyncContextManager[Heard]:
        """Send one request and read its reply within the block; leaving it early hangs up.

        Raises:
            PenstockError: the status is not a good one, see `infra.llm_errors.status_error`.
            TimeoutError, OSError, httpx2.TransportError …: as `infra.llm_errors` knows them.
        """
        try:
            content = orjson.dumps(body)
        except orjson.JSONEncodeError:  # half a surrogate pair, which JSON can escape
            content = json.dumps(body).encode()
        return self._direct(path, content) if self._http is None else self._proxied(self._http, path, content)

    @asynccontextmanager
    async def _direct(self, path: str, content: bytes) -> AsyncIterator[Heard]:
        line = self._kept() or await self._dial()
        try:
            # One piece: the request's head and body leave as one packet where they fit into one.
            head = await line.ask(
                b"POST %b%b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b"
                % (self._path, path.encode(), self._head, len(content), content)
            )
            heard = Direct(head.headers, line)
            await _check(head.status, heard)
            yield heard
        finally:
            self._keep(line)

    async def _dial(self) -> Line:
        import httpx2  # noqa: PLC0415 - see __init__

        if self._scheme not in {"http", "https"}:
            raise httpx2.UnsupportedProtocol(f"{self._scheme} is no scheme of a model API")
        if any(_CONTROL.search(value) for value in self._headers.values()):
            raise httpx2.LocalProtocolError("a header, such as the key, holds a control character")
        dial = min(self._timeout, CONNECT_TIMEOUT)
        return await Line.connect(self._host, self._port, self._tls, dial=dial, timeout=self._timeout)

    def _kept(self) -> Line | None:
        """The connection that was used last, if the other side has not hung up."""
        now = asyncio.get_running_loop().time()
        while self._waiting:
            line = self._waiting.pop()
            if now - line.idle_since <= KEPT_SECONDS and line.fresh:
                return line
            line.hang_up()
        return None

    def _keep(self, line: Line) -> None:
        """Keep a connection whose reply was read to its end; those that waited too long are closed."""
        now = line.idle_since = asyncio.get_running_loop().time()
        while self._waiting and now - self._waiting[0].idle_since > KEPT_SECONDS:
            self._waiting.pop(0).hang_up()
        if len(self._waiting) < KEPT and line.fresh:
            self._waiting.append(line)
        else:
            line.hang_up()

    @asynccontextmanager
    async def _proxied(self, http: httpx2.AsyncClient, path: str, content: bytes) -> AsyncIterator[Heard]:
        request = http.build_request("POST", self._url + path, content=content, headers=self._headers)
        response = await http.send(request, stream=True)
        try:
            async with aclosing(response.aiter_bytes()) as body:
                heard = Proxied(response.headers, body, self._timeout)
                await _check(response.status_code, heard)
                yield heard
        finally:
            await response.aclose()


def _address(url: str) -> tuple[str, str, int, bytes, str]:
    """Scheme, host, port, path and Host header of a base URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port, parts.path.encode(), parts.netloc.rpartition("@")[2]


async def _check(status: int, heard: Heard) -> None:
    """Raise unless the status is a good one: with what the provider says of its code and parameter."""
    if 200 <= status < 300:
        return
    said = bytearray()
    while part := await heard.part():
        said += part
        if len(said) > MAX_ERROR:
            break
    error = _error_in(bytes(said))
    raise status_error(status, error.get("code") or error.get("type"), error.get("param"), heard.headers)


def _error_in(body: bytes) -> Mapping[str, Any]:
    """What a provider says of an error; servers that know no envelope put it on top."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = reply.get("error", reply) if isinstance(reply, dict) else None
    return error if isinstance(error, dict) else {}

"""A request for a tenant's URL goes out through here, and a reply of bounded size comes back in bounded time.

Built on httpcore2, the engine room of httpx2: no cookies, no redirects, no decoding, no proxy from the environment
can happen here, because nothing in it does these things (docs/decisions/0006-egress.md).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpcore2

from infra.egress.dial import PROGRESS, GuardedBackend, Phase, Progress
from infra.egress.headers import kept as kept_headers
from infra.egress.headers import outgoing
from infra.egress.kept import Kept
from infra.egress.policy import EgressPolicy
from infra.egress.resolver import Resolver, SystemResolver
from infra.egress.url import CheckedUrl
from schemas.errors import BadInput, CallFailed, TooLarge, Unavailable, Unreadable

MAX_REPLY = 64 * 1024
MAX_DOCUMENT = 50 * 1024 * 1024
_KEEPALIVE_SECONDS = 4.0  # shorter than the five seconds after which common servers hang up
_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Reply:
    """What the target answered.

    Attributes:
        headers: the few that decisions need, by lower-case name.
        body: at most ``max_bytes`` bytes; ``truncated`` says that there was more.
        elapsed: seconds from the start of the request to the end of the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool
    elapsed: float


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was fetched; ``media_type`` is what the server called it, without parameters."""

    body: bytes
    media_type: str
    charset: str | None
    headers: Mapping[str, str]
    elapsed: float


class Egress:
    """The one door for URLs that a tenant supplies; an async context manager that keeps connections open."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        max_idle: int = 100,
    ) -> None:
        """Open nothing yet.

        Args:
            policy: what the operator allows.
            resolver: looks names up; the system's unless given.
            tls: verifies certificates; the system's authorities unless given.
            max_idle: connections kept open for the next request.
        """
        context = tls or httpcore2.default_ssl_context()
        if not context.check_hostname or context.verify_mode is not ssl.CERT_REQUIRED:
            raise ValueError("certificates must be verified")
        self.policy = policy
        self._resolver = resolver or SystemResolver()
        context.set_alpn_protocols(["http/1.1"])
        # The callers bound how much they send at once; a queue in here would be charged to the target.
        self._kept = Kept(
            GuardedBackend(policy, self._resolver, context), context, max_idle, _KEEPALIVE_SECONDS
        )

    async def __aenter__(self) -> Self:
        """Ready."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the kept connections."""
        await self._kept.aclose()
        await self._resolver.aclose()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout: float = 15.0,
        max_bytes: int = MAX_REPLY,
    ) -> Reply:
        """Send one request and read its reply; a redirect is a reply like any other.

        Args:
            method: such as ``POST``.
            url: checked here again, whatever was checked before.
            headers: further headers; those that frame the message are refused.
            content: the body's bytes, sent as they are.
            timeout: seconds for everything: names, connection, TLS, request, and the reply's body.
            max_bytes: the rest of a longer body is not read, and the connection is closed.

        Raises:
            BadInput: the URL or a header breaks a rule.
            BlockedTarget: no tenant may make us go there; nothing was sent.
            CallFailed: their fault; ``field`` is dns, connect, tls, timeout or protocol.
            Unavailable: our fault; ``field`` is dns, network or the name of a setting.
        """
        checked = self.policy.check_url(url)
        sent = outgoing(checked, headers or {}, content)
        progress = Progress()
        token = PROGRESS.set(progress)
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(
                    method, checked, headers=sent, content=content, timeout=timeout, max_bytes=max_bytes
                )
        except (TimeoutError, httpcore2.TimeoutException):
            raise _late(progress.phase) from None
        except httpcore2.ConnectError as error:
            raise CallFailed(f"TLS failed: {_tls_reason(error)}", field="tls") from None
        except httpcore2.LocalProtocolError:
            raise BadInput("a header or the method cannot be sent", field="headers") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError):
            raise CallFailed("the connection was cut, or the reply was not HTTP", field="protocol") from None
        finally:
            PROGRESS.reset(token)

    async def _exchange(
        self,
        method: str,
        url: CheckedUrl,
        *,
        headers: list[tuple[bytes | str, bytes | str]],
        content: bytes | None,
        timeout: float,
        max_bytes: int,
    ) -> Reply:
        started = time.monotonic()
        target = httpcore2.URL(
            scheme=url.scheme, host=url.host.encode(), port=url.port, target=url.target.encode()
        )
        request = httpcore2.Request(method, target, headers=headers, content=content)
        async with self._kept.take((url.scheme, url.host, url.port), timeout) as connection:
            response = await connection.handle_async_request(request)
            kept = kept_headers(response.headers)
            body, truncated = bytearray(), False
            async with aclosing(response.aiter_stream()) as parts:
                async for part in parts:
                    body += part
                    if len(body) > max_bytes:
                        truncated = True
                        break
            await response.aclose()
        return Reply(response.status, kept, bytes(body[:max_bytes]), truncated, time.monotonic() - started)

    async def fetch(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        max_bytes: int = MAX_DOCUMENT,
    ) -> Document:
        """Fetch a whole document.

        Raises:
            TooLarge: it is longer than ``max_bytes``.
            Unreadable: the server answers with a redirect, a refusal, or in a form we did not ask for.
            CallFailed: the server fails for now; its ``retry_after`` is given where it said so.
            BadInput, BlockedTarget, Unavailable: as in `request`.
        """
        asked = {"accept": "*/*", **(headers or {})}
        reply = await self.request("GET", url, headers=asked, timeout=timeout, max_bytes=max_bytes)
        if reply.status in _AGAIN or reply.status >= 500:
            raise CallFailed(
                f"the document's server answered {reply.status}",
                field="status",
                retry_after=_seconds(reply.headers.get("retry-after")),
            )
        if 300 <= reply.status < 400:
            raise Unreadable("the document's address redirects, and redirects are not followed", field="uri")
        if reply.status != 200:
            raise Unreadable(f"the document's server answered {reply.status}", field="uri")
        if reply.truncated:
            raise TooLarge(f"the document is longer than {max_bytes} bytes", field="uri")
        if reply.headers.get("content-encoding", "identity").lower() != "identity":
            raise Unreadable("the document came compressed although that was not asked for", field="uri")
        media_type, charset = _content_type(reply.headers.get("content-type", ""))
        return Document(reply.body, media_type, charset, reply.headers, reply.elapsed)


def _late(phase: Phase) -> CallFailed | Unavailable:
    """Whose fault a deadline is: a silent name server or proxy is ours, the rest is theirs."""
    if phase is Phase.DNS:
        return Unavailable("the name servers did not answer in time", field="dns")
    if phase is Phase.PROXY:
        return Unavailable("the egress proxy did not answer in time", field="PENSTOCK_EGRESS_PROXY")
    if phase is Phase.CONNECT:
        return CallFailed("the connection timed out", field="timeout")
    return CallFailed("the reply was not complete in time", field="timeout")


def _tls_reason(error: httpcore2.ConnectError) -> str:
    cause = error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return str(cause.verify_message)[:200]
    return "the handshake failed"


def _content_type(text: str) -> tuple[str, str | None]:
    media_type, *parameters = (part.strip() for part in text.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    charset = next((value.strip('" ') for name, _, value in pairs if name.strip().lower() == "charset"), None)
    return media_type.lower() or "application/octet-stream", charset


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None

"""A host and port come in; a connection to one of its checked addresses goes out to httpcore2's pool.

This is the only place that connects for a tenant, and it connects to an address, never to a name: what was checked
is what is connected to, whatever the name servers say a moment later. TLS is put on top by the pool, which still
verifies the host's name.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

import httpcore2
import structlog

from infra.egress.policy import EgressPolicy
from infra.egress.proxy import open_tunnel
from infra.egress.ranges import Address
from infra.egress.resolver import Resolver
from infra.egress.stream import Line
from schemas.errors import BlockedTarget, CallFailed, Unavailable

log = structlog.get_logger()

_MAX_TRIED = 4
_OUR_FAULT = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,
        errno.ENETDOWN,
        errno.EPERM,
    }
)


class Phase(StrEnum):
    """How far a request has come; says whose fault a deadline is."""

    WAITING = "waiting"
    DNS = "dns"
    PROXY = "proxy"
    CONNECT = "connect"
    CONNECTED = "connected"


@dataclass(slots=True)
class Progress:
    """The phase of the request that runs in the current task."""

    phase: Phase = Phase.WAITING


PROGRESS: ContextVar[Progress | None] = ContextVar("egress_progress", default=None)


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Resolves, checks every address, and connects to one of those checked."""

    def __init__(self, policy: EgressPolicy, resolver: Resolver, tls: ssl.SSLContext) -> None:
        self._policy = policy
        self._resolver = resolver
        self._tls = tls

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the host, or say whose fault it is that we did not.

        Raises:
            BlockedTarget: one of the host's addresses is forbidden; which one is in our log only.
            CallFailed: the target's fault.
            Unavailable: ours.
        """
        del local_address, socket_options
        _enter(Phase.DNS)
        addresses = await self._checked(host, port)
        if (proxy := self._policy.proxy) is not None:
            _enter(Phase.PROXY)
            stream = await open_tunnel(proxy, addresses[0], port, tls=self._tls, timeout=timeout)
        else:
            _enter(Phase.CONNECT)
            stream = await self._connect(addresses[:_MAX_TRIED], port, timeout)
        _enter(Phase.CONNECTED)
        return stream

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Never: a URL cannot name a socket file.

        Raises:
            BlockedTarget: always.
        """
        del path, timeout, socket_options
        raise BlockedTarget("a socket file may not be connected to", field="url")

    async def sleep(self, seconds: float) -> None:
        """Wait; part of the interface."""
        await asyncio.sleep(seconds)

    async def _checked(self, host: str, port: int) -> Sequence[Address]:
        addresses = [_address(text) for text in await self._answers(host, port)]
        if not addresses:
            raise CallFailed("the host name has no address", field="dns")
        for address in addresses:
            if (reason := self._policy.refusal(address, port)) is not None:
                log.warning("egress.blocked", host=host, port=port, address=str(address), reason=reason)
                raise BlockedTarget("the host has an address that may not be connected to", field="url")
        return addresses

    async def _answers(self, host: str, port: int) -> Sequence[str]:
        try:
            ip_address(host)
        except ValueError:
            return await self._resolver.resolve(host, port)
        return [host]

    async def _connect(
        self, addresses: Sequence[Address], port: int, timeout: float | None
    ) -> httpcore2.AsyncNetworkStream:
        """Try the addresses in turn; each gets its share of the time that is left."""
        end = None if timeout is None else time.monotonic() + timeout
        failure: Exception = CallFailed("the host has no address", field="connect")
        for index, address in enumerate(addresses):
            share = None if end is None else max(0.0, end - time.monotonic()) / (len(addresses) - index)
            try:
                return await Line.connect(str(address), port, share)
            except TimeoutError:
                failure = CallFailed("the connection timed out", field="timeout")
            except OSError as error:
                failure = _refused(error, address)
        raise failure


def _enter(phase: Phase) -> None:
    if (progress := PROGRESS.get()) is not None:
        progress.phase = phase


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise BlockedTarget("the host has an address that cannot be read", field="url") from None


def _refused(error: BaseException, address: Address) -> Exception:
    number = _errno(error)
    # No route at all over IPv4 is our network's fault; over IPv6 it is common that only the target has it.
    if number in _OUR_FAULT or (number == errno.ENETUNREACH and address.version == 4):
        return Unavailable("our network does not let us connect", field="network")
    if number == errno.ECONNREFUSED:
        return CallFailed("the connection was refused", field="connect")
    return CallFailed("the connection failed", field="connect")


def _errno(error: BaseException | None) -> int | None:
    """The operating system's number, which httpcore2 and anyio wrap several times."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__
    return None

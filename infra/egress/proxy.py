"""A connection to the operator's egress proxy becomes a tunnel to the address that was checked (RFC 9110, CONNECT).

The tunnel names the address, not the host: otherwise the proxy would resolve the name again, and what it then
connects to would be an address that nobody checked. Plain http goes through a tunnel as well, for the same reason.
"""

from __future__ import annotations

import re
import ssl

import httpcore2

from infra.egress.policy import Proxy
from infra.egress.ranges import Address
from infra.egress.stream import Line
from schemas.errors import CallFailed, Unavailable

_MAX_HEAD = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
_FIELD = "PENSTOCK_EGRESS_PROXY"


async def open_tunnel(
    proxy: Proxy,
    address: Address,
    port: int,
    *,
    tls: ssl.SSLContext,
    timeout: float | None,
) -> httpcore2.AsyncNetworkStream:
    """Connect to the proxy and have it connect to the address.

    Raises:
        Unavailable: the proxy cannot be reached or refuses us; names the setting, for it is not the target's fault.
        CallFailed: the proxy could not reach the target (5xx).
    """
    stream: httpcore2.AsyncNetworkStream | None = None
    try:
        stream = await Line.connect(proxy.host, proxy.port, timeout)
        if proxy.tls:
            stream = await stream.start_tls(tls, server_hostname=proxy.host, timeout=timeout)
        await stream.write(_request(proxy, address, port), timeout=timeout)
        status = await _status(stream, timeout)
    except (OSError, TimeoutError, httpcore2.NetworkError, httpcore2.TimeoutException):
        await _close(stream)
        raise Unavailable("the egress proxy cannot be reached", field=_FIELD) from None
    except BaseException:
        await _close(stream)
        raise
    if not 200 <= status < 300:
        await _close(stream)
        if status >= 500:
            raise CallFailed("the egress proxy could not connect to the receiver", field="connect")
        raise Unavailable(f"the egress proxy refused the tunnel with status {status}", field=_FIELD)
    return stream


def _request(proxy: Proxy, address: Address, port: int) -> bytes:
    host = f"[{address}]" if address.version == 6 else str(address)
    lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _status(stream: httpcore2.AsyncNetworkStream, timeout: float | None) -> int:
    """Read exactly the reply's head: what follows belongs to the tunnel."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # One byte at a time at the end of a head, so that no byte of the tunnel is swallowed.
        part = await stream.read(1, timeout=timeout)
        head += part
        if not part or len(head) > _MAX_HEAD:
            raise Unavailable("the egress proxy gave no usable reply", field=_FIELD)
    match = _STATUS.match(head)
    if match is None:
        raise Unavailable("the egress proxy gave no usable reply", field=_FIELD)
    return int(match[1])


async def _close(stream: httpcore2.AsyncNetworkStream | None) -> None:
    if stream is not None:
        await stream.aclose()

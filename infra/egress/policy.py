"""The operator's settings become one `EgressPolicy`, which says of an address and a port whether we may go there.

`PENSTOCK_EGRESS_ALLOW` is a comma-separated list of ``CIDR[:port|:*]``, with IPv6 in brackets:

    10.0.0.0/8             the ordinary ports of the range
    10.1.2.3:9000          one port of one address
    [fd00::/8]:*           any port of the range

An entry speaks of the address as it is written. An IPv4-mapped address is the IPv4 address; an address that carries
another one inside (NAT64, 6to4) is not, so that allowing 10.0.0.0/8 opens no detour into it.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from ipaddress import ip_network
from urllib.parse import unquote, urlsplit

from infra.egress.ranges import Address, Network, forbidden, unmapped
from infra.egress.url import CheckedUrl, read_url
from schemas.errors import BlockedTarget, Misconfigured

ORDINARY_PORTS = frozenset({80, 443, 8080, 8443})
_ENTRY = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:./]+)\]|(?P<v4>[0-9./]+))(?::(?P<port>\d{1,5}|\*))?")
_ALLOW = "PENSTOCK_EGRESS_ALLOW"
_PROXY = "PENSTOCK_EGRESS_PROXY"


@dataclass(frozen=True, slots=True)
class Entry:
    """One range that the operator opened; ``ports`` is None when every port is open."""

    network: Network
    ports: frozenset[int] | None

    def covers(self, address: Address, port: int) -> bool:
        """Whether this entry opens the port of the address."""
        return self.opens(port) and unmapped(address) in self.network

    def opens(self, port: int) -> bool:
        """Whether this entry opens the port of any address."""
        return self.ports is None or port in self.ports


@dataclass(frozen=True, slots=True)
class Proxy:
    """The operator's egress proxy; ``authorization`` is the value of the Proxy-Authorization header."""

    host: str
    port: int
    tls: bool
    authorization: str | None

    def __repr__(self) -> str:
        """Without the credentials."""
        return f"Proxy({self.host}:{self.port}, tls={self.tls})"


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What the operator allows tenants' URLs to reach, beyond the public internet's ordinary ports."""

    entries: tuple[Entry, ...] = ()
    https_only: bool = False
    proxy: Proxy | None = None

    @classmethod
    def parse(cls, allow: str = "", *, https_only: bool = False, proxy: str | None = None) -> EgressPolicy:
        """Read the settings `PENSTOCK_EGRESS_ALLOW`, `PENSTOCK_EGRESS_HTTPS_ONLY` and `PENSTOCK_EGRESS_PROXY`.

        Raises:
            Misconfigured: one of them cannot be read; names it.
        """
        entries = tuple(_entry(text.strip()) for text in allow.split(",") if text.strip())
        return cls(entries, https_only, _proxy(proxy) if proxy else None)

    def check_url(self, url: str) -> CheckedUrl:
        """Check all that can be known before the host is resolved; call it when a URL is registered.

        Raises:
            BadInput: not an http(s) URL.
            BlockedTarget: no tenant may make us go there.
        """
        checked = read_url(url)
        if self.https_only and checked.scheme != "https":
            raise BlockedTarget("only https URLs are allowed here", field="url", fix="use https://")
        if checked.port not in ORDINARY_PORTS and not any(
            entry.opens(checked.port) for entry in self.entries
        ):
            raise BlockedTarget(
                f"port {checked.port} may not be connected to", field="url", fix="use 443, 80, 8080 or 8443"
            )
        if checked.address is not None and (reason := self.refusal(checked.address, checked.port)):
            raise BlockedTarget(
                f"the URL's address may not be connected to: {reason}",
                field="url",
                fix="give a public address; for receivers inside a cluster an operator sets PENSTOCK_EGRESS_ALLOW",
            )
        return checked

    def refusal(self, address: Address, port: int) -> str | None:
        """Why we may not connect to the port of the address, or None when we may."""
        if any(entry.covers(address, port) for entry in self.entries):
            return None
        if (reason := forbidden(address)) is not None:
            return reason
        return None if port in ORDINARY_PORTS else "port"


def _entry(text: str) -> Entry:
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise _bad_entry(text)
    try:
        network = ip_network(match["v6"] or match["v4"])
    except ValueError:
        raise _bad_entry(text) from None
    if match["port"] is None:
        return Entry(network, ORDINARY_PORTS)
    if match["port"] == "*":
        return Entry(network, None)
    if not 0 < int(match["port"]) < 65536:
        raise _bad_entry(text)
    return Entry(network, frozenset({int(match["port"])}))


def _bad_entry(text: str) -> Misconfigured:
    return Misconfigured(
        f"{_ALLOW}: {text[:60]!r} is not CIDR[:port|:*]",
        field=_ALLOW,
        fix="write it like 10.0.0.0/8, 10.1.2.3:9000 or [fd00::/8]:*, without host bits",
    )


def _proxy(text: str) -> Proxy:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host:
        raise Misconfigured(
            f"{_PROXY} is not a proxy's URL", field=_PROXY, fix="write it like http://proxy.example:3128"
        )
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    tls = parts.scheme == "https"
    return Proxy(host, port or (443 if tls else 3128), tls, authorization)

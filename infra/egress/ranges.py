"""An address comes in, and the reason why no tenant may make us connect to it goes out, or None.

The table is our own: `ipaddress.is_global` calls multicast, 192.88.99.0/24 and addresses that carry a private
IPv4 address inside them global. Sources: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and its
successors), RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(cidr), reason)
    for cidr, reason in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        # Not in any registry: the host service of one cloud, answered on the virtual network only.
        ("168.63.129.16/32", "cloud host service"),
        ("169.254.0.0/16", "link-local, cloud metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "automatic multicast tunnelling"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, broadcast"),
    )
)

# IPv6 is closed by default: only 2000::/3 is handed out to the public internet, less these.
_V6_PUBLIC = IPv6Network("2000::/3")
_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(cidr), reason)
    for cidr, reason in (
        ("2001::/23", "protocol assignments, Teredo"),
        ("2001:db8::/32", "documentation"),
        ("2620:4f:8000::/48", "AS112"),
        ("3ffe::/16", "6bone, given back"),
        ("3fff::/20", "documentation"),
    )
)
_SIX_TO_FOUR = IPv6Network("2002::/16")
_NAT64 = IPv6Network("64:ff9b::/96")
_TEREDO = IPv6Network("2001::/32")
_ISATAP = (0x00005EFE, 0x02005EFE)


def unmapped(address: Address) -> Address:
    """The IPv4 address that an IPv4-mapped IPv6 address is another spelling of; any other address as it is."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that a router on the way may take out of an IPv6 address: 6to4, NAT64, Teredo, ISATAP."""
    bits = int(address)
    low = IPv4Address(bits & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return (IPv4Address(bits >> 80 & 0xFFFFFFFF),)
    if address in _NAT64:
        return (low,)
    if address in _TEREDO:
        return IPv4Address(bits >> 64 & 0xFFFFFFFF), IPv4Address(~bits & 0xFFFFFFFF)
    if bits >> 32 & 0xFFFFFFFF in _ISATAP:
        return (low,)
    return ()


def forbidden(address: Address) -> str | None:
    """Why the address may not be connected to, in a few words, or None when it is on the public internet."""
    address = unmapped(address)
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _V4 if address in network), None)
    if address.scope_id is not None:
        return "scoped to a link"
    for inner in embedded(address):
        if (reason := forbidden(inner)) is not None:
            return f"carries an IPv4 address inside: {reason}"
    if address in _NAT64:
        return None
    if address not in _V6_PUBLIC:
        return _outside(address)
    return next((reason for network, reason in _V6 if address in network), None)


def _outside(address: IPv6Address) -> str:
    if address.is_loopback:
        return "loopback"
    if address.is_unspecified:
        return "unspecified"
    if address.is_multicast:
        return "multicast"
    if address.is_link_local:
        return "link-local"
    if address.is_private:
        return "private"
    return "not on the public internet"

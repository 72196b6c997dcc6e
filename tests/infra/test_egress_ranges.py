from __future__ import annotations

from ipaddress import ip_address

import pytest

from infra.egress.policy import EgressPolicy
from infra.egress.ranges import forbidden
from schemas.errors import Misconfigured

FORBIDDEN = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),  # noqa: S104 - an address to refuse, not a binding
    *("127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
    *("198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
    *("255.255.255.255", "192.31.196.1", "192.52.193.1", "192.175.48.1"),
    # IPv6 of its own
    *("::", "::1", "::2", "::127.0.0.1", "::8.8.8.8", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1"),
    *("fd00:ec2::254", "fd20:ce::254", "ff02::1", "ff0e::1", "100::1", "2001::1", "2001:2::1", "2001:10::1"),
    *("2001:20::1", "2001:db8::1", "2620:4f:8000::1", "3ffe::1", "3fff::1", "5f00::1", "4000::1", "8000::1"),
    *("64:ff9b:1::1", "64:ff9b:1::8.8.8.8", "::ffff:0:8.8.8.8"),
    # IPv4 inside IPv6
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe"),
    *("64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::7f00:1"),
    *("2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1", "2002:c0a8:101::1"),
    *("2001:0:7f00:1::1", "2001:0:808:808:0:0:80ff:fffe", "2600::5efe:10.0.0.1", "2600::200:5efe:127.0.0.1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1"),
    *("168.63.129.15", "192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "11.0.0.1"),
    *("2606:4700:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888", "2400:cb00::1"),
    *("::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"),
]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_forbidden_address(text: str) -> None:
    """An address outside the public internet is refused in every spelling, with a reason."""
    assert forbidden(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_address(text: str) -> None:
    """An address of the public internet is not refused, right up to the edges of the table."""
    assert forbidden(ip_address(text)) is None


@pytest.mark.parametrize(
    ("allow", "address", "port", "allowed"),
    [
        ("", "10.0.0.1", 443, False),
        ("", "8.8.8.8", 443, True),
        ("", "8.8.8.8", 22, False),
        ("10.0.0.0/8", "10.0.0.1", 443, True),
        ("10.0.0.0/8", "10.0.0.1", 8080, True),
        ("10.0.0.0/8", "10.0.0.1", 6379, False),
        ("10.0.0.0/8", "11.0.0.1", 22, False),
        ("10.0.0.0/8", "172.16.0.1", 443, False),
        ("10.0.0.5:9000", "10.0.0.5", 9000, True),
        ("10.0.0.5:9000", "10.0.0.5", 443, False),
        ("10.0.0.5:9000", "10.0.0.6", 9000, False),
        ("127.0.0.0/8:*", "127.0.0.1", 1, True),
        ("127.0.0.0/8:*", "::1", 1, False),
        ("127.0.0.0/8:*", "::ffff:127.0.0.1", 1, True),
        ("10.0.0.0/8:*", "64:ff9b::10.0.0.1", 443, False),
        ("10.0.0.0/8:*", "2002:a00:1::1", 443, False),
        ("[::1]:*", "::1", 5000, True),
        ("[fd00::/8]", "fd12::1", 443, True),
        ("[fd00::/8]", "fd12::1", 5000, False),
        ("[fd00::/8]:5000 , 10.0.0.0/8", "fd12::1", 5000, True),
        ("[fd00::/8]:5000 , 10.0.0.0/8", "10.1.1.1", 80, True),
        ("8.8.8.8:22", "8.8.8.8", 22, True),
    ],
)
def test_allow_list(allow: str, address: str, port: int, allowed: bool) -> None:
    """The allow list opens exactly the ranges and ports it names, and no detour into them."""
    policy = EgressPolicy.parse(allow)
    assert (policy.refusal(ip_address(address), port) is None) is allowed


@pytest.mark.parametrize(
    "allow",
    ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8:0", "10.0.0.0/8:70000", "10.0.0.0/8:x", "fd00::/8", "[fd00::/8", "example.com", "10.0.0.0/8:80:90", "*"],
)  # fmt: skip
def test_unreadable_allow_list(allow: str) -> None:
    """An entry that cannot be read stops the process and names the setting, rather than being skipped."""
    with pytest.raises(Misconfigured) as caught:
        EgressPolicy.parse(allow)
    assert caught.value.field == "PENSTOCK_EGRESS_ALLOW"


@pytest.mark.parametrize("proxy", ["proxy:3128", "socks5://proxy:1080", "http://", "http://proxy:port", "x"])
def test_unreadable_proxy(proxy: str) -> None:
    """A proxy setting that cannot be read stops the process and names the setting."""
    with pytest.raises(Misconfigured) as caught:
        EgressPolicy.parse(proxy=proxy)
    assert caught.value.field == "PENSTOCK_EGRESS_PROXY"


def test_proxy_credentials_are_not_shown() -> None:
    """The proxy's password is in no representation of the policy."""
    policy = EgressPolicy.parse(proxy="http://user:hunter2@proxy.example:3128")
    assert policy.proxy is not None
    assert policy.proxy.authorization == "Basic dXNlcjpodW50ZXIy"
    assert "dXNlcjpodW50ZXIy" not in repr(policy)
    assert "hunter2" not in repr(policy)

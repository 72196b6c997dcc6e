from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from infra.egress import Egress, EgressPolicy, lies_under, public_url
from schemas.errors import BadInput, BlockedTarget, CallFailed, PenstockError
from tests.infra.names import FixedNames

LITERALS = [
    "http://127.0.0.1/", "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/",
    "http://0x7f.0.0.1/", "http://0X7F.0.0.1/", "http://017700000001/", "http://0177.0.0.1/", "http://0/",
    "http://0.0.0.0/", "http://0x0/", "http://127.0.0.1./", "http://127.0.0.01/", "http://00127.0.0.1/",
    "http://3232235521/", "http://0xA9FEA9FE/", "http://2852039166/", "http://0251.0376.0251.0376/",
    "http://169.254.169.254/latest/meta-data/", "http://169.254.43518/", "http://425.510.425.510/",
    "http://999999999999/", "http://1.1.1.0x1/", "http://10.0.0.1:80/", "http://192.168.0.1/", "http://172.16.0.1/",
    "http://100.100.100.200/", "http://168.63.129.16/", "http://192.0.0.192/", "http://198.18.0.1/",
    "http://224.0.0.1/", "http://255.255.255.255/",
]  # fmt: skip
V6 = [
    "http://[::]/", "http://[::1]/", "http://[0:0:0:0:0:0:0:1]/", "http://[0000::1]/", "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::FFFF:A9FE:A9FE]/", "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1%251]/", "http://[fc00::1]/",
    "http://[fd00:ec2::254]/latest/", "http://[fec0::1]/", "http://[ff02::1]/", "http://[2001:db8::1]/",
    "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::169.254.169.254]/", "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/", "http://[2002:a9fe:a9fe::]/", "http://[2001:0:7f00:1::]/", "http://[100::1]/",
    "http://[::ffff:0:127.0.0.1]/", "http://[::1/", "http://::1/", "http://[127.0.0.1]/", "http://[v1.x]/",
    "http://[::1]80/", "http://[::1]@8.8.8.8/", "http://[]/", "http://[localhost]/",
]  # fmt: skip
SYNTAX = [
    "", "http:", "http:/", "http://", "http:///", "//127.0.0.1/", "127.0.0.1", "http:127.0.0.1", "http:/127.0.0.1",
    "http:\\\\127.0.0.1\\", "http:///127.0.0.1/", "https:?x", "file:///etc/passwd", "ftp://8.8.8.8/",
    "gopher://8.8.8.8/_x", "unix:///var/run/docker.sock", "ws://8.8.8.8/", "data:text/plain,x", "javascript:alert(1)",
    "http+unix://%2Fvar%2Frun/", "http://8.8.8.8:22/", "http://8.8.8.8:6379/", "http://8.8.8.8:0/",
    "http://8.8.8.8:65536/", "http://8.8.8.8:99999/", "http://8.8.8.8:/", "http://8.8.8.8:80:80/",
    "http://8.8.8.8:-80/", "http://8.8.8.8:+80/", "http://8.8.8.8:8 0/", "http://8.8.8.8:\uff18\uff10/", "http://8.8.8.8:80x/",
    " http://8.8.8.8/", "http://8.8.8.8/\r\nHost: x", "http://8.8.8.8\t/", "http://8.8.8.8/\x00", "http://8.8.8.8\n/",
    "http://exa mple.com/", "http://exa%20mple.com/", "http://%31%32%37.0.0.1/", "http://127%2e0%2e0%2e1/",
    "http://ex..ample.com/", "http://.example.com/", "http://example.com../", "http://-a.example/", "http://a-.example/",
    "http://a,b/", "http://a;b/", "http://a$b/", "http://*/", f"http://{'a' * 64}.example/", f"http://{'a.' * 130}example/",
    "http://8.8.8.8/" + "a" * 5000,
]  # fmt: skip
USERINFO = [
    "http://user@8.8.8.8/", "http://user:pass@8.8.8.8/", "http://8.8.8.8@127.0.0.1/", "http://127.0.0.1@8.8.8.8/",
    "http://8.8.8.8:80@127.0.0.1/", "http://@127.0.0.1/", "http://8.8.8.8\\@127.0.0.1/", "http://a@b@c/",
    "http://127.0.0.1\\.evil.example/", "http://8.8.8.8&@127.0.0.1/", "http://127.0.0.1:80\\@@8.8.8.8:80/",
]  # fmt: skip
UNICODE = [
    "http://①②⑦.⓪.⓪.①/", "http://１２７.０.０.１/", "http://127。0。0。1/", "http://127．0．0．1/", "http://127｡0｡0｡1/",  # noqa: RUF001
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", "http://loc\u00adalhost/", "http://local\u200bhost/", "http://\u202elocalhost/",
    "http://exa\u2044mple.com/", "http://127.0.0.1\uff0f.example/", "http://example.com\uff03@127.0.0.1/",
    "http://\u2488.example/", "http://ß\u0301\u0301\u200d.example/",
]  # fmt: skip
# Names that look harmless, and what the name servers say of them.
ANSWERS = {
    "localtest.example": ["127.0.0.1"],
    "meta.example": ["169.254.169.254"],
    "private.example": ["10.1.2.3"],
    "six.example": ["::1"],
    "mapped.example": ["::ffff:10.0.0.1"],
    "nat64.example": ["64:ff9b::a9fe:a9fe"],
    "sixtofour.example": ["2002:7f00:1::1"],
    "teredo.example": ["2001:0:7f00:1::1"],
    "ula.example": ["fd00::1"],
    "scoped.example": ["fe80::1%1"],
    "unspecified.example": ["0.0.0.0"],  # noqa: S104 - an answer, not a binding
    "multicast.example": ["239.1.1.1"],
    "last.example": ["93.184.216.34", "10.0.0.1"],
    "first.example": ["10.0.0.1", "93.184.216.34"],
    "mixed.example": ["2606:4700::1", "93.184.216.34", "::1"],
    "garbage.example": ["not an address"],
    "azure.example": ["168.63.129.16"],
    "localhost": ["127.0.0.1", "::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "redis": ["10.96.0.7"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "xn--lcalhost-n0a": ["127.0.0.1"],
}
RESOLVED = (
    [f"http://{host}/" for host in ANSWERS]
    + [f"https://{host}:8443/" for host in ANSWERS]
    + ["http://LOCALHOST./"]
)
HOSTILE = LITERALS + V6 + SYNTAX + USERINFO + UNICODE + RESOLVED


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every connect() of this process, none of which leaves the machine."""
    seen: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        del self
        seen.append(address)
        raise OSError(errno.ECONNREFUSED, "refused by the test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return seen


def test_the_table_is_large_enough() -> None:
    """The table of hostile URLs and answers holds at least the eighty that the bar asks for, without repetition."""
    assert len(set(HOSTILE)) == len(HOSTILE) >= 80


@pytest.mark.parametrize("url", HOSTILE)
async def test_hostile_url_does_not_connect(url: str, connects: list[Any]) -> None:
    """No hostile URL and no hostile answer of a name server leads to a connection, and the error is permanent."""
    async with Egress(EgressPolicy.parse(), resolver=FixedNames(ANSWERS)) as egress:
        with pytest.raises((BlockedTarget, BadInput)) as caught:
            await egress.request("POST", url, content=b"{}")
    assert [] == connects
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://8.8.8.8/", ("8.8.8.8", 80)),
        ("https://8.8.8.8", ("8.8.8.8", 443)),
        ("HTTPS://Good.Example.:8443/x?y#z", ("93.184.216.34", 8443)),
        ("http://bücher.example/", ("93.184.216.35", 80)),
        ("https://under_score.example/a b/ü", ("93.184.216.36", 443)),
        ("http://[2606:4700::1]:8080/", ("2606:4700::1", 8080, 0, 0)),
    ],
)
async def test_ordinary_url_connects(url: str, expected: tuple[object, ...], connects: list[Any]) -> None:
    """The same watch that sees nothing of hostile URLs sees an ordinary one connect to the address that was checked."""
    names = {"good.example": ["93.184.216.34"], "xn--bcher-kva.example": ["93.184.216.35"], "under_score.example": ["93.184.216.36"]}  # fmt: skip
    async with Egress(EgressPolicy.parse(), resolver=FixedNames(names)) as egress:
        with pytest.raises(CallFailed) as caught:
            await egress.request("GET", url)
    assert [expected] == connects
    assert caught.value.field == "connect"


async def test_https_only(connects: list[Any]) -> None:
    """With the https-only switch a plain http URL is refused before anything happens."""
    async with Egress(EgressPolicy.parse(https_only=True)) as egress:
        with pytest.raises(BlockedTarget, match="https"):
            await egress.request("GET", "http://8.8.8.8/")
    assert [] == connects


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/p?token=secret", "https://a.example/p"),
        ("https://a.example/p#secret", "https://a.example/p"),
        ("https://A.example:443", "https://a.example/"),
        ("https://user:secret@a.example/p", "https://a.example/p"),
        ("https://user:sec@ret@a.example/p", "https://a.example/p"),
        ("user:secret@a.example/?x", "a.example/"),
        ("https://user:se/cret@a.example/", "https://a.example/"),
        ("https://a.example/@me/feed?secret", "https://a.example/@me/feed"),
        ("ftp://a.example/x\r\ny", "ftp://a.example/x??y"),
        ("", ""),
    ],
)
def test_public_url(url: str, shown: str) -> None:
    """What may be logged of a URL has no user name, password, query or fragment, whatever the text looks like."""
    assert shown == public_url(url)


@pytest.mark.parametrize("url", HOSTILE)
def test_public_url_takes_anything(url: str) -> None:
    """Cutting a URL for the log never fails and never carries a control character into it."""
    assert public_url(url).isprintable()


async def test_errors_do_not_repeat_the_query() -> None:
    """An error about a URL repeats neither its query nor its password."""
    async with Egress(EgressPolicy.parse()) as egress:
        for url in ("http://127.0.0.1/?canary", "http://canary@8.8.8.8/", "http://8.8.8.8:22/?canary"):
            with pytest.raises(PenstockError) as caught:
                await egress.request("GET", url)
            assert "canary" not in str(caught.value.as_dict())


@pytest.mark.parametrize(
    ("url", "prefix", "under"),
    [
        ("https://a.example/hooks/1?x", "https://a.example/hooks", True),
        ("https://a.example/hooks/1", "https://a.example/hooks/", True),
        ("https://A.example:443/hooks", "https://a.example/hooks", True),
        ("https://a.example/anything", "https://a.example", True),
        ("https://a.example/hooks2", "https://a.example/hooks", False),
        ("https://a.example.evil.example/hooks/1", "https://a.example", False),
        ("https://a.example:8443/hooks/1", "https://a.example/hooks", False),
        ("http://a.example/hooks/1", "https://a.example/hooks", False),
        ("https://a.example/hooks/../admin", "https://a.example/hooks", False),
        ("https://a.example/hooks/%2e%2E/admin", "https://a.example/hooks", False),
        ("https://a.example/hooks/..%2fadmin", "https://a.example/hooks", False),
        ("https://a.example/hooks/..\\admin", "https://a.example/hooks", False),
        ("https://a.example/other?/hooks/", "https://a.example/hooks", False),
    ],
)
def test_callback_prefix(url: str, prefix: str, under: bool) -> None:
    """A callback lies under a prefix by scheme, host, port and whole path segments, not by its text."""
    assert under is lies_under(url, prefix)

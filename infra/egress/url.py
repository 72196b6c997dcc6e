"""A tenant's URL comes in as text and goes on as its parts, read in one strict way, or is refused.

Reading is strict because guards are passed by URLs that two parsers read differently: what this module takes for
the host is what is resolved, checked, connected to, and named in TLS. Only that one reading ever exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote, unquote

import idna

from infra.egress.ranges import Address
from schemas.errors import BadInput, BlockedTarget, PenstockError

MAX_URL = 4096
_MAX_SHOWN = 200
_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?"
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")
# RFC 3986's path and query characters, and "%" so that what is encoded already stays as it is.
_SAFE = "/:@!$&'()*+,;=-._~%?[]|"


@dataclass(frozen=True, slots=True)
class CheckedUrl:
    """The parts of a URL that passed the static checks.

    Attributes:
        host: a lower-case ASCII name without a final dot, or an IP literal without brackets.
        address: the host as an address when it is an IP literal; names are checked when they are resolved.
        target: path and query, percent-encoded: what stands in the request line.
        public: the URL without its query, fit for logs and errors.
    """

    scheme: str
    host: str
    port: int
    target: str
    address: Address | None
    public: str

    @property
    def netloc(self) -> str:
        """Host and, where it is not the scheme's own, the port: the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def read_url(url: str) -> CheckedUrl:
    """Read an http or https URL.

    Raises:
        BadInput: it is not such a URL; the message never repeats the query.
        BlockedTarget: it is written in a way that only serves to get past a guard (userinfo, disguised numbers).
    """
    if len(url) > MAX_URL:
        raise _bad(f"the URL is longer than {MAX_URL} characters")
    if not url.isprintable():
        raise _bad("the URL holds a control character")
    match = _URL.fullmatch(url)
    if match is None or match["scheme"].lower() not in _DEFAULT_PORTS:
        raise _bad(
            "the URL does not begin with http:// or https://", fix="write it like https://app.example/hooks"
        )
    scheme = match["scheme"].lower()
    host, port, address = _authority(match["authority"], scheme)
    path = quote(match["path"] or "/", safe=_SAFE)
    target = path + quote(match["query"] or "", safe=_SAFE)
    checked = CheckedUrl(scheme, host, port, target, address, "")
    return CheckedUrl(scheme, host, port, target, address, f"{scheme}://{checked.netloc}{path}"[:_MAX_SHOWN])


def public_url(url: str) -> str:
    """What may be logged or shown of any text that was meant as a URL: no userinfo, no query, no fragment."""
    try:
        return read_url(url).public
    except PenstockError:
        shown = re.split(r"[?#]", url, maxsplit=1)[0]
    # Greedy, over the path as well: it is not clear where the authority of such a text ends.
    shown = re.sub(r"^([^/@]*//)?.*@", r"\1", shown, flags=re.DOTALL)
    return "".join(char if char.isprintable() else "?" for char in shown)[:_MAX_SHOWN]


def lies_under(url: str, prefix: str) -> bool:
    """Whether a URL lies under a registered prefix: same scheme, host and port, and a path below the prefix's.

    Text is not compared with text: ``https://a.example`` is a prefix of ``https://a.example.evil.example`` that way.
    A path with dot segments is under nothing, because the server would walk out of the prefix with them.

    Raises:
        BadInput, BlockedTarget: one of the two is not a URL.
    """
    one, base = read_url(url), read_url(prefix)
    if (one.scheme, one.host, one.port) != (base.scheme, base.host, base.port):
        return False
    path, root = (re.split(r"\?", part.target, maxsplit=1)[0] for part in (one, base))
    if any(
        unquote(segment) in {".", ".."} for segment in re.split(r"/|\\|%2f|%5c", path, flags=re.IGNORECASE)
    ):
        return False
    return path == root or path.startswith(root.rstrip("/") + "/")


def _authority(text: str, scheme: str) -> tuple[str, int, Address | None]:
    if "@" in text:
        raise BlockedTarget(
            "the URL carries a user name or password", field="url", fix="give credentials in a header instead"
        )
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise _bad("the URL's host has an unclosed bracket")
        address = _v6(inner)
        return address.compressed, _port(rest, scheme), address
    host, colon, port = text.partition(":")
    name = _name(host)
    return name, _port(colon + port, scheme), _v4(name)


def _port(text: str, scheme: str) -> int:
    """The port in ``:8080``; the scheme's own when there is none."""
    if not text:
        return _DEFAULT_PORTS[scheme]
    digits = text[1:]
    if text[0] != ":" or not digits.isascii() or not _PORT.fullmatch(digits) or not 0 < int(digits) < 65536:
        raise _bad("the URL's port is not a number from 1 to 65535")
    return int(digits)


def _name(host: str) -> str:
    """The host as lower-case ASCII labels (RFC 1123, with underscores; IDNA 2008 without any mapping)."""
    host = host.removesuffix(".")
    try:
        labels = [
            label if label.isascii() else idna.alabel(label.lower()).decode() for label in host.split(".")
        ]
    except (idna.IDNAError, UnicodeError):
        raise _bad("the URL's host is not a valid international name") from None
    labels = [label.lower() for label in labels]
    name = ".".join(labels)
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad("the URL's host is not a host name")
    return name


def _v4(name: str) -> IPv4Address | None:
    """The address when the name is one in the usual dotted form; other numbers are refused, not interpreted."""
    if not _NUMBER.fullmatch(name.rsplit(".", 1)[-1]):
        return None
    try:
        return IPv4Address(name)
    except AddressValueError:
        raise BlockedTarget(
            "the URL's host is a number in an unusual form",
            field="url",
            fix="write the address as four decimals",
        ) from None


def _v6(text: str) -> IPv6Address:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise _bad("the URL's host is not an IPv6 address") from None
    if address.scope_id is not None:
        raise BlockedTarget("the URL's host names a network interface", field="url")
    return address


def _bad(message: str, fix: str | None = None) -> BadInput:
    return BadInput(message, field="url", fix=fix)

"""A tenant's headers pass through here into a request, and the few headers that decisions need out of a reply."""

from __future__ import annotations

import re
from collections.abc import Mapping

from infra.egress.url import CheckedUrl
from schemas.errors import BadInput

USER_AGENT = "Penstock"
_KEPT = frozenset(
    {"content-type", "content-encoding", "content-length", "retry-after", "etag", "last-modified"}
)
_OURS = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "expect",
    }
    | {"proxy-authorization", "proxy-connection", "accept-encoding"}
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that a tenant may not set; call it when an endpoint's headers are registered.

    Raises:
        BadInput: names the header.
    """
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise BadInput(f"{name[:60]!r} is not the name of a header", field="headers")
        if name.lower() in _OURS:
            raise BadInput(f"the header {name} is set by the transport", field="headers")
        if not value.isprintable() or value != value.strip():
            raise BadInput(
                f"the value of the header {name} holds control characters or spaces", field="headers"
            )
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise BadInput(
                f"the header {name} holds characters that HTTP cannot carry", field="headers"
            ) from None


def outgoing(
    url: CheckedUrl, given: Mapping[str, str], content: bytes | None
) -> list[tuple[bytes | str, bytes | str]]:
    """The headers of a request: ours, then those given."""
    check_headers(given)
    out: list[tuple[bytes | str, bytes | str]] = [("Host", url.netloc), ("Accept-Encoding", "identity")]
    if "user-agent" not in {name.lower() for name in given}:
        out.append(("User-Agent", USER_AGENT))
    if content is not None:
        out.append(("Content-Length", str(len(content))))
    out += [(name.encode("ascii"), value.encode("latin-1")) for name, value in given.items()]
    return out


def kept(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The few headers of a reply that decisions need."""
    read = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)
    return {name: value for name, value in read if name in _KEPT}

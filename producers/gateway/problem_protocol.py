"""Bytes that are not HTTP end here, answered with a problem document like every other error."""

from __future__ import annotations

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from producers.gateway.problems import MEDIA_TYPE

LONGEST_HEAD = 64 * 1024
"""Bytes of a request's line and headers behind the read that begins them; the parser would gather them without end."""


class ProblemProtocol(HttpToolsProtocol):
    """uvicorn's protocol over llhttp, whose own refusal is plain text."""

    _head: int | None = None
    """Bytes that came of a head since the read in which it began; None while none is open."""
    _read = 0

    def data_received(self, data: bytes) -> None:
        """Refuse a head that does not end."""
        if self.transport.is_closing():
            return
        if self._head is not None and self._head > LONGEST_HEAD:
            self.send_400_response("The head of the request is too long.")
            return
        self._read = len(data)
        super().data_received(data)
        if self._head is not None:
            self._head += self._read

    def on_message_begin(self) -> None:
        """A request begins."""
        self._head = -self._read
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is whole. HTTP/1.1 wants to know the host (RFC 9112 §3.2): the parser makes a refusal of the error."""
        self._head = None
        assert self.parser is not None
        if self.parser.get_http_version() == "1.1" and all(name != b"host" for name, _ in self.headers):
            raise ValueError("the request names no host")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed."""
        body = orjson.dumps(
            {
                "type": "urn:penstock:problem:bad_request",
                "title": "Bad Request",
                "status": 400,
                "detail": msg,
                "code": "bad_request",
            }
        )
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

"""The bytes of a model API's reply are unframed here: a head and a body come out, and whether its connection may go on.

`httptools` parses (llhttp, as uvicorn and Node use it); here stands what a client makes of it (RFC 9112 §6.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

LONGEST_HEAD = 64 * 1024
"""Bytes of a head, at most."""


class NotHttp(ConnectionError):
    """The other side says something else than a reply in HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Head:
    """A reply's status and headers, by lower-case name."""

    status: int
    headers: Mapping[str, str]


class ReplyReader:
    """The bytes of one reply are fed in as they come; its head and its body can be taken out.

    Attributes:
        head: None until it is complete.
        body: what has come of it and was not taken yet.
        over: whether the reply is complete.
        reusable: whether the connection may serve another request once it is.
    """

    __slots__ = ("_headers", "_parser", "_to_the_end", "_unread", "body", "head", "over", "reusable")

    def __init__(self) -> None:
        """Begin with the head."""
        self.head: Head | None = None
        self.body = bytearray()
        self.over = False
        self.reusable = True
        self._headers: dict[str, str] = {}
        self._parser = HttpResponseParser(self)
        self._to_the_end = False
        self._unread = 0

    def feed(self, data: bytes) -> None:
        """Take more bytes.

        Raises:
            NotHttp: they are no reply.
        """
        if self.over:
            self.reusable = False  # nobody asked for more
            return
        if self.head is None:
            self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self.over:
                raise NotHttp(f"the reply is not HTTP/1.1 ({type(error).__name__})") from None
            self.reusable = False
        if self.head is None and self._unread > LONGEST_HEAD:
            raise NotHttp("the head of the reply does not end")

    def hang_up(self) -> bool:
        """The other side has closed; whether the reply is complete, which without a length this alone can say."""
        self.reusable = False
        self.over = self.over or self._to_the_end
        return self.over

    def take(self) -> bytes:
        """What has come of the body."""
        part = bytes(self.body)
        self.body.clear()
        return part

    # What the parser tells.

    def on_message_begin(self) -> None:
        """A reply begins; behind a whole one nobody asked for it."""
        self.reusable = self.reusable and not self.over

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer, which nobody reads."""
        if self.head is None:
            key, said = name.decode("latin-1").lower(), value.decode("latin-1").strip()
            self._headers[key] = f"{self._headers[key]}, {said}" if key in self._headers else said

    def on_headers_complete(self) -> None:
        """The head is whole; behind an interim one the real one follows."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = {}
            return
        if self.head is not None:
            return
        self.head = Head(status, self._headers)
        coding = self._headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise NotHttp("the reply comes in a transfer coding that was not asked for")
        self._to_the_end = (
            coding is None and "content-length" not in self._headers and status not in {204, 304}
        )
        self.reusable = self._parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        """A piece of the body."""
        if not self.over:
            self.body += part

    def on_message_complete(self) -> None:
        """The reply is whole, unless it was an interim one."""
        self.over = self.head is not None

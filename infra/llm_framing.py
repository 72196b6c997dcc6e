"""The bytes of a model API's reply are unframed here: a head and a body come out, and whether its connection may go on.

HTTP/1.1 (RFC 9112) as far as the replies to a POST use it. A general client parses, checks and hands on each header and
chunk by itself, which cost a question more than everything that its answer consists of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

LONGEST_HEAD = 64 * 1024
"""Bytes of a head, of a chunk's first line and of a trailer, at most."""
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?:\s|$)")
_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;|$)")


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

    __slots__ = ("_left", "_raw", "_step", "body", "head", "over", "reusable")

    def __init__(self) -> None:
        """Begin with the head."""
        self.head: Head | None = None
        self.body = bytearray()
        self.over = False
        self.reusable = True
        self._raw = bytearray()
        self._left = 0
        self._step = self._read_head

    def feed(self, data: bytes) -> None:
        """Take more bytes.

        Raises:
            NotHttp: they are no reply.
        """
        self._raw += data
        while not self.over and self._step():
            pass
        if self.over and self._raw:
            self.reusable = False  # nobody asked for more

    def hang_up(self) -> bool:
        """The other side has closed; whether the reply is complete, which without a length this alone can say."""
        self.reusable = False
        self.over = self.over or self._step == self._read_rest
        return self.over

    def take(self) -> bytes:
        """What has come of the body."""
        part = bytes(self.body)
        self.body.clear()
        return part

    def _read_head(self) -> bool:
        found = _EMPTY_LINE.search(self._raw)
        if found is None:
            self._bound()
            return False
        first, *lines = self._raw[: found.start()].decode("latin-1").split("\n")
        del self._raw[: found.end()]
        said = _STATUS.match(first)
        if said is None:
            raise NotHttp("the reply is not HTTP/1.1")
        status = int(said[2])
        if status < 200:
            return True  # an interim reply; the real one follows
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise NotHttp("a header has no colon")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        kept = headers.get("connection", "" if said[1] != "0" else "close").lower()
        self.reusable = "close" not in kept
        self._frame(status, headers)
        self.head = Head(status, headers)
        return True

    def _frame(self, status: int, headers: Mapping[str, str]) -> None:
        """How the body ends (RFC 9112 §6.3)."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if status in {204, 304}:
            self.over = True
        elif coding is not None:
            if coding.lower() != "chunked":
                raise NotHttp("the reply comes in a transfer coding that was not asked for")
            self._step = self._read_size
        elif length is not None:
            if not (length.isascii() and length.isdigit()):
                raise NotHttp("the reply's length is no number")
            self._left, self._step = int(length), self._read_length
        else:
            self._step = self._read_rest

    def _read_length(self) -> bool:
        self._move()
        self.over = not self._left
        return False

    def _read_rest(self) -> bool:
        self.body += self._raw
        self._raw.clear()
        return False

    def _read_size(self) -> bool:
        end = self._raw.find(b"\n")
        if end < 0:
            self._bound()
            return False
        said = _SIZE.match(self._raw[:end].rstrip(b"\r"))
        if said is None:
            raise NotHttp("a chunk has no size")
        del self._raw[: end + 1]
        self._left = int(said[1], 16)
        self._step = self._read_chunk if self._left else self._read_trailers
        return True

    def _read_chunk(self) -> bool:
        self._move()
        if self._left or len(self._raw) < 2:
            return False
        skip = 1 if self._raw.startswith(b"\n") else 2
        if self._raw[skip - 1] != 10 or (skip == 2 and self._raw[0] != 13):
            raise NotHttp("a chunk is longer than its size")
        del self._raw[:skip]
        self._step = self._read_size
        return True

    def _read_trailers(self) -> bool:
        end = self._raw.find(b"\n")
        if end < 0:
            self._bound()
            return False
        self.over = not self._raw[:end].rstrip(b"\r")
        del self._raw[: end + 1]
        return True

    def _move(self) -> None:
        """From what came to the body, as far as it belongs there."""
        part = self._raw[: self._left]
        self.body += part
        self._left -= len(part)
        del self._raw[: len(part)]

    def _bound(self) -> None:
        if len(self._raw) > LONGEST_HEAD:
            raise NotHttp("a line of the reply does not end")

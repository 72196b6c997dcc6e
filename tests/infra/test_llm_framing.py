from __future__ import annotations

import pytest

from infra.llm_framing import LONGEST_HEAD, NotHttp, ReplyReader

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"


def read(raw: bytes, size: int) -> ReplyReader:
    """What a reader makes of a reply that comes in pieces of a size."""
    reader = ReplyReader()
    for at in range(0, len(raw), size):
        reader.feed(raw[at : at + size])
    return reader


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize(
    ("raw", "body", "over", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", b"hello", False, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello", b"hell", True, False),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nhe", b"he", True, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhe", b"he", True, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhe", b"he", True, True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", b"", True, True),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello", False, False),
        (CHUNKED + b"3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n", b"hello", True, True),
        (CHUNKED + b"3\r\nhel\r\n0002\r\nlo\r\n0\r\nX-Trailer: 1\r\n\r\n", b"hello", True, True),
        (CHUNKED + b"3\r\nhel\r\n0\r\n", b"hel", False, True),
    ],
)
def test_a_reply_is_read_however_it_is_cut(
    raw: bytes, body: bytes, over: bool, reusable: bool, size: int
) -> None:
    """Lengths, chunks and trailers end a body; what closes, or says more than it announced, serves no second request."""
    reader = read(raw, size)
    assert (body, over, reusable) == (bytes(reader.body), reader.over, reader.reusable)


def test_headers_have_lower_case_names() -> None:
    """A name that comes twice has both values; spaces around values are none of theirs."""
    reader = read(b"HTTP/1.1 429 Slow down\r\nRetry-After:  3 \r\nX-A: 1\r\nx-a: 2\r\n\r\n", 1000)
    assert reader.head is not None
    assert (429, {"retry-after": "3", "x-a": "1, 2"}) == (reader.head.status, reader.head.headers)


@pytest.mark.parametrize(
    ("raw", "complete"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nhello", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", False),
        (CHUNKED + b"5\r\nhello\r\n", False),
        (b"HTTP/1.1 200", False),
    ],
)
def test_only_a_reply_without_a_length_ends_with_its_connection(raw: bytes, complete: bool) -> None:
    """A reply that is shorter than it said was cut."""
    assert complete is read(raw, 1000).hang_up()


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"2\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * LONGEST_HEAD,
    ],
)
def test_what_is_no_reply_is_refused(raw: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(NotHttp):
        read(raw, 100_000)

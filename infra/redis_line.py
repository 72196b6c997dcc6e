"""All commands of a process share one connection to Redis: what is sent in one turn of the loop leaves as one write.

redis-py connects, encrypts and logs in; then its transport is taken over. It gives each command a connection for itself
and reads each reply under a timer of its own, which cost a process five times what Redis spent on the command.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis
from redis.asyncio.connection import Connection, ConnectionPool
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import DataError, InvalidResponse
from redis.exceptions import TimeoutError as TooLate

Command = Sequence[Any]


@dataclass(slots=True)
class _Sent:
    """Commands whose replies are awaited together."""

    replies: asyncio.Future[list[Any]]
    count: int
    since: float
    come: list[Any] = field(default_factory=list)


class Line(asyncio.Protocol):
    """A connection that redis-py opened."""

    def __init__(self, connection: Connection) -> None:
        """Take the connection over; redis-py has read all that came so far.

        Args:
            connection: connected and logged in.
        """
        writer = connection._writer  # noqa: SLF001 - there is no other way to it # pyright: ignore[reportPrivateUsage]
        assert writer is not None
        self.up = True
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        # uvloop's transports are not asyncio's by class.
        self._transport = cast("asyncio.Transport", writer.transport)
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001 - as above # pyright: ignore[reportPrivateUsage]
        )
        self._waiting: deque[_Sent] = deque()
        self._leaving: list[bytes] = []
        self._patience: float | None = connection.socket_timeout
        self._watch: asyncio.TimerHandle | None = None

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, one behind the other; their replies, errors among them.

        Raises:
            redis.exceptions.DataError: an argument is neither text, bytes nor a number.
            redis.exceptions.ConnectionError: the connection broke; what was sent may have been carried out.
            redis.exceptions.TimeoutError: there was no reply within redis-py's `socket_timeout`.
        """
        packed = [_packed(command) for command in commands]
        sent = _Sent(self._loop.create_future(), len(packed), self._loop.time())
        if not self._leaving:
            self._loop.call_soon(self._leave)
        self._leaving += packed
        self._waiting.append(sent)
        if self._watch is None and self._patience is not None:
            self._watch = self._loop.call_later(self._patience, self._look)
        return await sent.replies

    def close(self) -> None:
        """Hang up; whoever waits is told."""
        self._end(ConnectionFailed("the connection was closed"))

    def _leave(self) -> None:
        packed, self._leaving = self._leaving, []
        if self.up:
            self._transport.write(b"".join(packed))

    def _look(self) -> None:
        """End a connection on which somebody has waited for too long: what comes on it now nobody can tell apart."""
        self._watch = None
        if not self._waiting or self._patience is None:
            return
        left = self._waiting[0].since + self._patience - self._loop.time()
        if left <= 0:
            self._end(TooLate("Redis did not answer in time"))
        else:
            self._watch = self._loop.call_later(left, self._look)

    def _end(self, error: Exception) -> None:
        self.up = False
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call] # noqa: SLF001 - it must know # pyright: ignore[reportPrivateUsage]
        waiting, self._waiting = self._waiting, deque()
        for sent in waiting:
            if not sent.replies.done():
                sent.replies.set_exception(error)

    # What the loop tells.

    def data_received(self, data: bytes) -> None:
        """Hand replies to those who wait for them, in order."""
        self._reader.feed(data)
        try:
            # False says that a reply is not complete yet; RESP 2 has no booleans.
            while self._waiting and (reply := self._reader.gets()) is not False:
                sent = self._waiting[0]
                sent.come.append(reply)
                if len(sent.come) == sent.count:
                    self._waiting.popleft()
                    if not sent.replies.done():  # its caller was cancelled
                        sent.replies.set_result(sent.come)
        except InvalidResponse as error:
            self._end(error)

    def eof_received(self) -> bool:
        """Redis hung up; the transport closes by itself."""
        self._end(ConnectionFailed("Redis hung up"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self.up:
            self._end(ConnectionFailed(f"the connection broke ({type(exc).__name__})"))


class Trunk:
    """The line of a process, and lines aside for what waits in Redis; dials when there is none."""

    def __init__(self, pool: ConnectionPool) -> None:
        """Dial as a pool of redis-py does."""
        self._pool = pool
        self._line: Line | None = None
        self._dialling: asyncio.Task[Line] | None = None
        self._spare: list[Line] = []

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """As `Line.send`, on a line that stands."""
        line = self._line
        if line is None or not line.up:
            line = await self._dialled()
        return await line.send(commands)

    async def wait(self, commands: Sequence[Command]) -> list[Any]:
        """The same for commands that may wait in Redis, on a line of their own.

        When the caller gives up the line is closed: Redis must carry out nothing for somebody who is gone.
        """
        line = None
        while self._spare and (line is None or not line.up):
            line = self._spare.pop()
        if line is None or not line.up:
            line = await self._dial()
        try:
            replies = await line.send(commands)
        except BaseException:
            line.close()
            raise
        self._spare.append(line)
        return replies

    async def aclose(self) -> None:
        """Hang up."""
        if self._dialling is not None:
            await asyncio.wait([self._dialling])
        if self._line is not None:
            self._line.close()
            self._line = None
        for line in self._spare:
            line.close()
        self._spare.clear()

    async def _dialled(self) -> Line:
        """A new line; those who need one at the same time share it."""
        if self._dialling is None:
            self._dialling = asyncio.create_task(self._redial())
        # Shielded: whoever gives up must not take the line away from the others.
        return await asyncio.shield(self._dialling)

    async def _redial(self) -> Line:
        try:
            self._line = await self._dial()
            return self._line
        finally:
            self._dialling = None

    async def _dial(self) -> Line:
        connection = cast("Connection", self._pool.make_connection())  # type: ignore[no-untyped-call] # redis-py has no types here
        try:
            await connection.connect()  # type: ignore[no-untyped-call] # as above
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return Line(connection)


def _packed(command: Command) -> bytes:
    try:
        return cast("bytes", hiredis.pack_command(tuple(command)))
    except TypeError as error:
        raise DataError(str(error)) from None

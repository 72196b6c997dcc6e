"""A server process passes through here from its socket to its exit: it says where it listens, serves, stops, exits 0."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import uvicorn

from infra.local.model.app import Options, build_app
from infra.local.model.connection import CuttableProtocol

LOOPBACK = "127.0.0.1"
GRACE_SECONDS = 3
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen (0: any free port), where to say so, and whether to stop when standard input ends."""

    port: int
    ready_file: Path | None
    lifeline: bool


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which ends the process by the signal instead of with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(options: Options, listening: Listening) -> None:
    """Serve until a signal comes, or until standard input ends if that was asked for."""
    # Embedding and training hold the interpreter in threads; the event loop gets it back within a millisecond.
    sys.setswitchinterval(0.001)
    loop = asyncio.get_running_loop()
    closing = asyncio.Event()
    listener = socket.create_server((LOOPBACK, listening.port))
    async with build_app(options, closing) as app:
        config = uvicorn.Config(
            app,
            http=CuttableProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=75,
            h11_max_incomplete_event_size=1 << 20,
        )
        server = _Server(config)

        def stop() -> None:
            closing.set()
            server.should_exit = True

        for each in _SIGNALS:
            loop.add_signal_handler(each, stop)
        if listening.lifeline:
            _watch_input(loop, stop)
        _say_ready(listener.getsockname()[1], options.key, listening.ready_file)
        await server.serve(sockets=[listener])


def _watch_input(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Stop when whoever started the server is gone: the other end of its pipe is closed then, even after a kill -9."""

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop()

    loop.add_reader(sys.stdin.fileno(), look)


def _say_ready(port: int, key: str, ready_file: Path | None) -> None:
    """Connections are accepted from now on: the socket listens, and uvicorn takes them a moment later."""
    ready = {"base_url": f"http://{LOOPBACK}:{port}/v1", "pid": os.getpid()}
    if ready_file is None:
        sys.stdout.write(orjson.dumps(ready).decode() + "\n")
        sys.stdout.flush()
        return
    partial = ready_file.with_name(ready_file.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(orjson.dumps({**ready, "api_key": key}))
    partial.replace(ready_file)

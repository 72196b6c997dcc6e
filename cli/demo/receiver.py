"""Webhooks of the demo arrive here; each signature is verified with the `standardwebhooks` library, not with our code."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import orjson
import uvicorn
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class Receiver:
    """Counts what arrives.

    Attributes:
        received: webhook-id → type of every verified message; a repetition counts once.
        forged: messages whose signature was wrong.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook"
        self.received: dict[str, str] = {}
        self.forged = 0
        self._verifier: Webhook | None = None

    def trust(self, secret: str) -> None:
        """Verify with this secret from now on."""
        self._verifier = Webhook(secret)

    @property
    def by_type(self) -> Counter[str]:
        """How many messages of each type have arrived."""
        return Counter(self.received.values())

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Listen on a free port of the loopback interface."""
        listener = socket.create_server(("127.0.0.1", 0))
        receiver = cls(int(listener.getsockname()[1]))
        app = Starlette(routes=[Route("/hook", receiver._take, methods=["POST"])])
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        # serve() would take over the demo's signals.
        task = asyncio.create_task(server._serve(sockets=[listener]))  # noqa: SLF001
        try:
            yield receiver
        finally:
            server.should_exit = True
            with suppress(asyncio.CancelledError):
                await task
            listener.close()

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        if self._verifier is None:
            return Response(status_code=503)
        try:
            self._verifier.verify(body, dict(request.headers))
        except WebhookVerificationError:
            self.forged += 1
            return Response(status_code=400)
        message: dict[str, Any] = orjson.loads(body)
        self.received[request.headers["webhook-id"]] = message["type"]
        return Response(status_code=204)

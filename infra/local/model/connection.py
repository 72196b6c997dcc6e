"""Connections pass through here on their way from uvicorn to the app, which is given the means to cut them."""

from __future__ import annotations

import asyncio
from typing import cast

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol


class CuttableProtocol(H11Protocol):
    """uvicorn's connection, with its transport handed to every request in the request's state.

    ASGI has no message for hanging up before a reply or in the middle of one, which is what the faults
    `drop`, `drop_reply` and `cut` do.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base class
        """Keep the transport where a request finds it."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def hang_up(request: Request) -> None:
    """Close the connection of a request; what was already sent still arrives."""
    cast("asyncio.Transport", request.state.transport).close()


async def left(request: Request) -> None:
    """Wait until the client has gone (or its connection was closed here)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass

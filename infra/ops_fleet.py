"""One ops port for several processes: what it is asked passes to each of them, over a socket of its own, and comes back as one.

A process whose event loop is blocked cannot answer, and that is the answer: the supervisor, which does nothing else,
says so for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.ops import PROBE_TIMEOUT, serve_app

PATIENCE: Final = PROBE_TIMEOUT + 1.0
SILENT: Final = "no answer: it is starting, or its event loop is blocked"


def socket_of(folder: Path, index: int) -> Path:
    """Where a process serves its ops port for the supervisor."""
    return folder / f"{index}.sock"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    media_type: str

    def response(self) -> Response:
        return Response(self.body, self.status, media_type=self.media_type)


async def _ask(path: Path, target: str, patience: float) -> _Answer | None:
    """One process's answer; None when there is none in time."""
    transport = httpx2.AsyncHTTPTransport(uds=str(path))
    try:
        async with (
            asyncio.timeout(patience),
            httpx2.AsyncClient(transport=transport, base_url="http://process", timeout=patience) as client,
        ):
            found = await client.get(target)
    except (httpx2.HTTPError, OSError):
        return None
    return _Answer(found.status_code, found.content, found.headers.get("content-type", "text/plain"))


def merged(answers: Sequence[_Answer | None]) -> tuple[int, dict[str, Any]]:
    """The readiness of all processes together: ready when each is.

    Returns:
        The HTTP status and the body: a check per process and resource.
    """
    checks: dict[str, str] = {}
    for index, answer in enumerate(answers):
        told = {"process": SILENT} if answer is None else orjson.loads(answer.body)["checks"]
        checks |= {f"process {index}: {name}": text for name, text in told.items()}
    failed = any(answer is None or answer.status != 200 for answer in answers)
    return 503 if failed else 200, {"status": "failed" if failed else "ok", "checks": checks}


def fleet_app(folder: Path, processes: int, *, patience: float = PATIENCE) -> Starlette:
    """The port's application.

    Args:
        folder: of the processes' sockets.
        processes: how many there are.
        patience: seconds to wait for one.
    """
    paths = [socket_of(folder, index) for index in range(processes)]

    async def livez(_: Request) -> Response:
        return Response(orjson.dumps({"status": "ok"}), media_type="application/json")

    async def readyz(_: Request) -> Response:
        answers = await asyncio.gather(*(_ask(path, "/readyz", patience) for path in paths))
        status, body = merged(answers)
        return Response(orjson.dumps(body), status, media_type="application/json")

    async def any_of_them(request: Request) -> Response:
        # Figures of queues are the fleet's, from Redis and the ledger: whoever answers says the same.
        last: _Answer | None = None
        for path in paths:
            answer = await _ask(path, request.url.path, patience)
            if answer is not None and answer.status < 500:
                return answer.response()
            last = answer or last
        if last is not None:
            return last.response()
        body = {"title": "Not available now", "status": 503, "detail": "no process answers"}
        return Response(orjson.dumps(body), 503, media_type="application/json")

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", any_of_them),
            Route("/v1/scaling/{queue:path}", any_of_them),
        ]
    )


@asynccontextmanager
async def serve_fleet(host: str, port: int, folder: Path, processes: int) -> AsyncIterator[int]:
    """Serve the ops port of a supervisor until the block ends; yields the port."""
    async with serve_app(fleet_app(folder, processes), host, port) as taken:
        yield taken

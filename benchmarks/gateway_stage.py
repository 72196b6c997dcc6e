"""Each contestant of the gateway's benchmark is a process of its own, which is one core; what it does is its first argument.

gateway   the whole gateway
bare      a FastAPI route that parses the event as the gateway does and stores nothing
asyncpg   asyncpg alone, inserting the same rows into event_keys and events, in groups
sdk       `Producer.publish`, in groups

The first two print their port and serve until standard input ends; the others print seconds per run asked for on
standard input, as "count group connections".
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import uvicorn
import uvloop
from fastapi import FastAPI, Request
from starlette.responses import Response

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gateway_load import make_events
from infra.ledger import Offered, attributes_of, data_sha256, offer
from infra.log import configure
from infra.settings import Settings, load_settings
from producers import Producer
from producers.gateway.modes import read_offer
from producers.gateway.respond import json_response
from producers.gateway.server import collect_rarely, listen, open_server
from schemas.envelope import parse_event
from schemas.ids import new_event_id

KEYS = """
INSERT INTO event_keys (tenant_id, source, id, event_id, data_sha256)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::bytea[])
"""
EVENTS = """
INSERT INTO events (tenant_id, event_id, source, id, type, major, queue, subject, data, sequence, attributes, expires_at)
SELECT i.c1, i.c2, i.c3, i.c4, i.c5, i.c6, i.c7, i.c8, i.c9::jsonb, i.c10, i.c11::jsonb, i.c12
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::text[],
            $9::text[], $10::bigint[], $11::text[], $12::timestamptz[])
  AS i (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12)
"""
TENANT = "bench"


async def serve_gateway(settings: Settings) -> None:
    """The gateway as `penstock gateway` runs it, its logs included."""
    async with open_server(settings) as serving:
        collect_rarely()
        await _until_the_end(serving.port)


async def serve_bare(settings: Settings) -> None:
    """What FastAPI and reading the event cost by themselves."""
    del settings
    app = FastAPI()

    @app.post("/v1/events")
    async def publish(request: Request) -> Response:
        read = await read_offer(request)
        shown = [
            {"index": 0, "event_id": new_event_id(), "source": one.source, "id": one.id, "status": "accepted"}
            for one in read.items
        ]
        return json_response({"results": shown}, 202)

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await _until_the_end(int(listener.getsockname()[1]))
    server.should_exit = True
    await task


async def _until_the_end(port: int) -> None:
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)


def rows_of(offered: Sequence[Offered]) -> tuple[list[Any], list[Any]]:
    """The columns of both tables, made before the clock starts."""
    events = [one.event for one in offered]
    ids = [one.event_id for one in offered]
    tenants = [TENANT] * len(offered)
    sources, names = [event.source for event in events], [event.id for event in events]
    keys = [tenants, sources, names, ids, [data_sha256(event) for event in events]]
    columns: list[Any] = [
        tenants,
        ids,
        sources,
        names,
        [event.type for event in events],
        [event.major for event in events],
        ["penstock:train"] * len(events),
        [event.subject for event in events],
        [json.dumps(event.data) for event in events],
        [event.sequence for event in events],
        [orjson.dumps(attributes_of(event)).decode() for event in events],
        [event.expirytime for event in events],
    ]
    return keys, columns


async def run_asyncpg(settings: Settings) -> None:
    """The physical limit: the owner's connections, no policies, nothing parsed or checked within the clock."""
    async with asyncpg.create_pool(
        settings.need("PENSTOCK_DATABASE_OWNER_URL"), min_size=8, max_size=8
    ) as pool:

        async def run(raw: Sequence[dict[str, Any]], group: int, connections: int) -> float:
            offered = offer(TENANT, [parse_event(one) for one in raw])
            waiting = iter(
                [rows_of(offered[start : start + group]) for start in range(0, len(offered), group)]
            )

            async def one() -> None:
                async with pool.acquire() as connection:
                    for keys, columns in waiting:
                        async with connection.transaction():
                            await connection.execute(KEYS, *keys)
                            await connection.execute(EVENTS, *columns)

            return await _timed(one, connections)

        await _answer(run)


async def run_sdk(settings: Settings) -> None:
    """A program inside the cluster; events are mappings, read and checked within the clock."""
    async with Producer(tenant=TENANT, settings=settings) as producer:

        async def run(raw: Sequence[dict[str, Any]], group: int, connections: int) -> float:
            waiting = iter([raw[start : start + group] for start in range(0, len(raw), group)])

            async def one() -> None:
                for batch in waiting:
                    results = await producer.publish(batch)
                    assert {result.status for result in results} == {"accepted"}

            return await _timed(one, connections)

        await _answer(run)


async def _timed(one: Callable[[], Awaitable[None]], connections: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return time.perf_counter() - began


async def _answer(run: Callable[[Sequence[dict[str, Any]], int, int], Awaitable[float]]) -> None:
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, group, connections = json.loads(line)
        print(await run(make_events(count), group, connections), flush=True)


PARTS = {"gateway": serve_gateway, "bare": serve_bare, "asyncpg": run_asyncpg, "sdk": run_sdk}

if __name__ == "__main__":
    configure(stream=sys.stderr)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(PARTS[sys.argv[1]](load_settings(gateway_port=0, ops_port=0)))

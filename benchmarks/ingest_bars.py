"""Each measurement of the ingest benchmark: what goes in is timed or weighed here, and comes out as a number."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import statistics
import subprocess
import time
from collections.abc import Sequence
from urllib.parse import urlsplit
from uuid import uuid4

import orjson

from benchmarks.ingest_corpus import Document
from benchmarks.ingest_stack import ROOT, Stack, Stub, resident
from infra import vectors
from infra.bus import open_redis
from infra.llm import ModelApi
from infra.push import push
from schemas.work import Pushable

PEERS = ("pgai", "llamaindex")
PROCESSES = 2


def stub_rate(stub: Stub, texts: Sequence[str], dimensions: int) -> float:
    """Embeddings per second that the stub serves to a client that only reads bytes."""
    body = orjson.dumps(
        {"input": list(texts[:1000]), "model": "m", "dimensions": dimensions, "encoding_format": "base64"}
    )
    link = http.client.HTTPConnection("127.0.0.1", stub.port)
    rates: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        link.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        link.getresponse().read()
        rates.append(len(texts[:1000]) / (time.perf_counter() - began))
    link.close()
    return max(rates)


async def client_cpu(stub: Stub, texts: Sequence[str], dimensions: int) -> float:
    """Milliseconds of this process per vector: from texts to the wire bytes that PostgreSQL takes."""
    part = list(texts[:1000])
    costs: list[float] = []
    async with ModelApi.open(stub.url, "bench") as models:
        for _ in range(5):
            began = time.process_time()
            embedded = await models.embed(part, model="m", dimensions=dimensions)
            wires = vectors.to_wire(embedded.vectors)
            costs.append((time.process_time() - began) * 1000 / len(wires))
    return statistics.median(costs)


async def against_copy(
    stack: Stack, documents: Sequence[Document], dimensions: int, rounds: int
) -> tuple[float, float]:
    """Chunks per second from published to searchable, and vectors per second by one raw COPY; in turns, live index."""
    chunks = sum(len(one.chunks) for one in documents)
    ours: list[float] = []
    copies: list[float] = []
    for _ in range(rounds):
        tenant = await stack.tenant()
        space = await stack.collection(tenant, dimensions, indexed=True)
        ours.append(chunks / await stack.ingest(tenant, documents))
        copies.append(chunks / await stack.copy(tenant, space))
        await stack.owner.execute(f"TRUNCATE vectors_{space}")
    pairs = sorted(zip(ours, copies, strict=True), key=lambda pair: pair[0] / pair[1])
    return pairs[len(pairs) // 2]


async def without_index(stack: Stack, documents: Sequence[Document], dimensions: int) -> float:
    """Documents per second from published to written, no vector index."""
    tenant = await stack.tenant()
    await stack.collection(tenant, dimensions, indexed=False)
    return len(documents) / await stack.ingest(tenant, documents)


async def peer(
    stack: Stack, name: str, stub: Stub, documents: Sequence[Document], dimensions: int, *, indexed: bool
) -> float:
    """A peer's documents per second, cut by its own splitter into pieces of about our size; nan when it fails."""
    python = ROOT / ".peers" / name / "bin" / "python"
    if not python.exists():
        print(f"{name} is not installed: make peers")
        return math.nan
    url = urlsplit(stack.servers.database_owner_url)
    asked = {
        "url": stack.servers.database_owner_url,
        "sqlalchemy_url": f"postgresql+psycopg2://{url.netloc}{url.path}",
        "base_url": stub.url,
        "table": f"peer_{name}_{uuid4().hex[:8]}",
        "dimensions": dimensions,
        "indexed": indexed,
        "texts": [one.text for one in documents],
    }
    driver = ROOT / "benchmarks" / "ingest_peers" / f"run_{name}.py"
    done = await asyncio.to_thread(
        subprocess.run,
        [str(python), str(driver)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    if done.returncode != 0:
        print(f"{name} failed: {done.stderr[-600:]}")
        return math.nan
    told = json.loads(done.stdout.splitlines()[-1])
    rate = len(documents) / float(told["seconds"])
    print(f"  {name}{', live index' if indexed else ''}: {rate:,.0f} documents/s, {told['chunks']:,} chunks")
    return rate


async def again(
    stack: Stack, stub: Stub, documents: Sequence[Document], dimensions: int
) -> tuple[float, float]:
    """How many times faster an unchanged corpus is the second time, and its embedding calls."""
    tenant = await stack.tenant()
    await stack.collection(tenant, dimensions, indexed=True)
    first = await stack.ingest(tenant, documents)
    stub.reset()
    second = await stack.ingest(tenant, documents)
    return first / second, stub.stats()["requests"]


async def rate_used(
    stack: Stack, stub: Stub, documents: Sequence[Document], dimensions: int, seconds: float
) -> tuple[float, float]:
    """The part of 500 requests a minute that three processes use at 100 ms a call, and refusals per request.

    Each document is a request of its own, because eight jobs a process are not enough to fill one.
    """
    rpm, latency = 500.0, 0.1
    tenant = await stack.tenant()
    await stack.collection(tenant, dimensions, indexed=False)
    async with stack.workers(stub, 3, "--concurrency", "4"):
        stub.reset(latency, rpm)
        await stack.publish(tenant, documents)
        await asyncio.sleep(5)  # the pace is found
        before = stub.stats()
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        after = stub.stats()
        passed = time.perf_counter() - began
    stub.reset()
    served = after["requests"] - before["requests"]
    left = await stack.owner.fetchval(
        "SELECT count(*) FROM events WHERE tenant_id = $1 AND finished_at IS NULL AND queue IS NOT NULL",
        tenant,
    )
    print(
        f"  rate: {served / passed * 60:.0f} requests a minute, {after['refused']:.0f} refused, {left} documents left"
    )
    return served / passed * 60 / rpm if left else math.nan, after["refused"] / max(1.0, after["requests"])


async def memory(stack: Stack, stub: Stub, waiting: int, many: int, dimensions: int) -> tuple[float, float]:
    """MB of a worker while documents wait, and its growth when many more jobs wait."""
    tenant = await stack.tenant()
    await stack.collection(tenant, dimensions, indexed=False)
    client = open_redis(stack.servers.redis_url)
    async with stack.workers(stub, 1) as [pid]:
        stub.reset(latency=2.0)
        text = "A text of a page. " * 150
        await stack.publish(tenant, [Document(f"m{at}", f"{at} {text}", ()) for at in range(waiting)])
        sizes: list[float] = []
        for _ in range(20):
            sizes.append(resident(pid))
            await asyncio.sleep(0.25)
        before = max(sizes)
        for at in range(0, many, 20_000):
            # Due in an hour, so that they wait.
            await push(
                client,
                [
                    Pushable(uuid4(), "document.added", "penstock:ingest", 3600.0)
                    for _ in range(min(20_000, many - at))
                ],
            )
        after: list[float] = []
        for _ in range(12):
            after.append(resident(pid))
            await asyncio.sleep(0.25)
    stub.reset()
    await client.flushall()
    await stack.owner.execute(
        "UPDATE events SET finished_at = now(), status = 'done' WHERE tenant_id = $1 AND finished_at IS NULL",
        tenant,
    )
    await client.aclose(close_connection_pool=True)
    return max(before, *after), max(after) / before

"""The embedded servers, the stub and real `penstock worker` processes stand here for the ingest benchmarks."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from benchmarks import ingest_stub
from benchmarks.ingest_corpus import Document, vectors
from infra.bus import Bus, open_redis
from infra.database import Database, set_codecs
from infra.local import processes
from infra.local.environment import child_environment
from infra.local.servers import Servers
from infra.local.stack import LocalStack
from infra.migrate import migrate
from schemas.envelope import parse_event

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120.0
"""Seconds after which a run that does not end is given up."""
BATCH = 100
"""Events per call of a producer."""


@dataclass(slots=True)
class Stub:
    """A running stub server."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        """What `OPENAI_BASE_URL` is."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, float]:
        """What was served since the last reset."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as reply:
            return dict(json.load(reply))

    def reset(self, latency: float = 0.0, rpm: float = 0.0) -> None:
        """Forget counts, and play by other rules."""
        address = f"http://127.0.0.1:{self.port}/reset?latency={latency}&rpm={rpm}"
        with urllib.request.urlopen(urllib.request.Request(address, method="POST")):
            pass


@dataclass(slots=True)
class Stack:
    """Everything that runs."""

    servers: Servers
    folder: Path
    owner: asyncpg.Connection[asyncpg.Record]
    bus: Bus
    held: AsyncExitStack
    stubs: dict[int, Stub] = field(default_factory=dict)

    async def stub(self, dimensions: int, texts: Sequence[str]) -> Stub:
        """A server of the texts' vectors in so many dimensions; started once."""
        if dimensions not in self.stubs:
            corpus = self.folder / f"corpus-{dimensions}.npz"
            ingest_stub.save(str(corpus), list(texts), vectors(list(texts), dimensions))
            port = processes.free_port(0)
            command = [sys.executable, ingest_stub.__file__, "--port", str(port), "--corpus", str(corpus)]
            process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
                command, stdout=subprocess.PIPE, text=True
            )
            self.held.callback(stop, process)
            assert process.stdout is not None
            process.stdout.readline()
            self.stubs[dimensions] = Stub(port, process)
        return self.stubs[dimensions]

    async def tenant(self) -> str:
        """A tenant that has nothing yet, so that nothing is in its cache."""
        name = f"bench-{secrets.token_hex(4)}"
        await self.owner.execute("INSERT INTO tenants (tenant_id, title) VALUES ($1, 'bench')", name)
        return name

    async def collection(self, tenant: str, dimensions: int, *, indexed: bool) -> int:
        """Make the collection `c` in an embedding space of its own, with or without its vector index."""
        space: int = await self.owner.fetchval("SELECT space_ensure('bench', $1, $2)", tenant, dimensions)
        index = f"vectors_{space}_hnsw"
        await self.owner.execute(f"DROP INDEX IF EXISTS {index}")
        if indexed:
            await self.owner.execute(
                f"CREATE INDEX {index} ON vectors_{space} USING hnsw (embedding halfvec_ip_ops)"
            )
        await self.owner.execute(
            "INSERT INTO collections (tenant_id, name, space_id) VALUES ($1, 'c', $2)", tenant, space
        )
        return space

    def environment(self, stub: Stub, **extra: str) -> dict[str, str]:
        """The environment of a worker process."""
        return child_environment(
            self.servers,
            extra={
                "OPENAI_BASE_URL": stub.url,
                "OPENAI_API_KEY": "bench",
                "PENSTOCK_OPS_PORT": "0",
                "PENSTOCK_LOG_LEVEL": "warning",
                "PENSTOCK_HOME": str(self.folder / "none"),
                "PYTHONPATH": str(ROOT),
                **extra,
            },
        )

    @asynccontextmanager
    async def workers(self, stub: Stub, count: int, *more: str, **extra: str) -> AsyncIterator[list[int]]:
        """Real worker processes of the ingest pool, ready to claim; yields their process ids."""
        command = [sys.executable, "-m", "cli.main", "worker", "ingest", *more]
        log = (self.folder / "workers.log").open("ab")
        running = [
            subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
                command,
                env=self.environment(stub, **extra),
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
            for _ in range(count)
        ]
        try:
            # Warm: each has handled a document of a tenant that nobody measures.
            await self.settle(await self.warm_up(stub, count))
            yield [one.pid for one in running]
        finally:
            for one in running:
                stop(one)
            log.close()

    async def warm_up(self, stub: Stub, count: int) -> str:
        """Publish a few documents for a tenant that nobody measures."""
        tenant = await self.tenant()
        dimensions = next(width for width, one in self.stubs.items() if one is stub)
        await self.collection(tenant, dimensions, indexed=True)
        documents = [Document(f"w{at}", f"warm {at}", (f"warm {at}",)) for at in range(50 * count)]
        await self.publish(tenant, documents)
        return tenant

    async def publish(self, tenant: str, documents: Sequence[Document]) -> None:
        """Publish documents as a producer does."""
        for at in range(0, len(documents), BATCH):
            events = [
                parse_event(
                    {
                        "specversion": "1.0",
                        "id": str(uuid4()),
                        "source": "bench",
                        "type": "document.added",
                        "data": {"collection": "c", "document_id": one.name, "content": one.text},
                    }
                )
                for one in documents[at : at + BATCH]
            ]
            await self.bus.publish(tenant, events)

    @staticmethod
    def small(count: int) -> list[Document]:
        """Documents of one chunk each, all different."""
        return [
            Document(f"s{at}", f"Page {at} of a book that nobody has written.", ("",)) for at in range(count)
        ]

    async def settle(self, tenant: str) -> None:
        """Wait until all of a tenant's events are done."""
        async with asyncio.timeout(PATIENCE):
            while await self.owner.fetchval(  # noqa: ASYNC110 - another process does it
                "SELECT EXISTS (SELECT FROM events WHERE tenant_id = $1 AND queue = 'penstock:ingest'"
                " AND finished_at IS NULL)",
                tenant,
            ):
                await asyncio.sleep(0.02)

    async def ingest(self, tenant: str, documents: Sequence[Document]) -> float:
        """Seconds from the first publish until the last document is searchable."""
        began = time.perf_counter()
        await self.publish(tenant, documents)
        await self.settle(tenant)
        seconds = time.perf_counter() - began
        wanted = sum(len(one.chunks) for one in documents)
        found = await self.owner.fetchval("SELECT count(*) FROM chunks WHERE tenant_id = $1", tenant)
        assert found == wanted, f"{found} of {wanted} chunks"
        return seconds

    async def copy(self, tenant: str, space: int) -> float:
        """Seconds that one COPY of a tenant's vectors takes, as owner, into the emptied table with all its indexes."""
        rows: list[Any] = await self.owner.fetch(
            f"SELECT tenant_id, collection_id, chunk_id, embedding FROM vectors_{space} WHERE tenant_id = $1",  # noqa: S608
            tenant,
        )
        await self.owner.execute(f"TRUNCATE vectors_{space}")
        began = time.perf_counter()
        await self.owner.copy_records_to_table(f"vectors_{space}", records=map(tuple, rows))
        return time.perf_counter() - began


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process and wait for it."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def resident(pid: int) -> float:
    """A process's resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@asynccontextmanager
async def open_stack() -> AsyncIterator[Stack]:
    """Start servers in a folder of their own, and end them."""
    async with AsyncExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        local = await held.enter_async_context(
            LocalStack.start(folder, what="the ingest benchmark", wipe_at_end=True)
        )
        servers = local.servers
        await migrate(servers.database_owner_url, serving_url=servers.database_url)
        owner = await asyncpg.connect(servers.database_owner_url)
        held.push_async_callback(owner.close)
        await set_codecs(owner)
        gateway = await held.enter_async_context(Database.open(servers.database_url, role="penstock_gateway"))
        client = open_redis(servers.redis_url)
        held.push_async_callback(client.aclose, close_connection_pool=True)
        bus = Bus(gateway, client)
        held.push_async_callback(bus.aclose)
        yield Stack(servers, folder, owner, bus, held)

"""Events pass through the gateway and through what it is held against, in turns, on one PostgreSQL; ratios are the result.

one gateway process, which is one core (`benchmarks/gateway_stage.py`), the sender and the servers on what is left. `--quick`
makes it smaller (every bar, under five minutes), `--json` prints one JSON object last.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bars import Bar, arguments, report
from benchmarks.gateway_load import make_events, requests, send
from infra.keys import create_key
from infra.local.environment import child_environment
from infra.local.model.server import ModelServer
from infra.local.servers import Servers
from infra.local.stack import LocalStack
from infra.migrate import migrate
from infra.secretbox import SecretBox
from infra.tenants import create_tenant

STAGE = Path(__file__).with_name("gateway_stage.py")
ROOT = Path(__file__).resolve().parents[1]
TENANT = "bench"
BATCH = 100


@dataclass(frozen=True, slots=True)
class Size:
    """How many events a sample has, and how often each is taken."""

    batched: int
    single: int
    rounds: int


@asynccontextmanager
async def part(name: str, environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A contestant, ready; ends with the block."""
    with Path(environment["PENSTOCK_HOME"], f"bench-{name}.log").open("wb") as log:  # noqa: ASYNC230 - nothing else runs yet
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(STAGE),
            name,
            env=environment,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next line that a contestant says."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, "a contestant has died; run benchmarks/gateway_stage.py by hand to see why"
    return line.decode().strip()


async def ask(process: asyncio.subprocess.Process, count: int, group: int, connections: int) -> float:
    """Events per second of a contestant that makes its own."""
    assert process.stdin is not None
    process.stdin.write(json.dumps([count, group, connections]).encode() + b"\n")
    await process.stdin.drain()
    return count / float(await line_of(process))


async def over_http(port: int, key: str, count: int, group: int, connections: int) -> float:
    """Events per second that a server accepts."""
    wire = requests(make_events(count), group, key)
    return count / await send(port, wire, connections)


async def empty(servers: Servers) -> None:
    """The same ledger for every sample: nothing in it, and no queue either."""
    connection = await asyncpg.connect(servers.database_owner_url)
    await connection.execute("TRUNCATE events, event_keys")
    await connection.close()


async def measure(servers: Servers, size: Size, environment: dict[str, str], key: str) -> dict[str, float]:
    """Take every sample in turns and return the medians, in events per second."""
    async with AsyncExitStack() as held:
        names = ("gateway", "bare", "asyncpg", "sdk")
        parts = {name: await held.enter_async_context(part(name, environment)) for name in names}
        said = {name: await line_of(parts[name]) for name in names}
        gateway, bare = int(said["gateway"]), int(said["bare"])
        samples: dict[str, list[float]] = {}

        async def take(name: str, run: Callable[[], asyncio.Future[float] | object]) -> None:
            await empty(servers)
            rate = await run()  # type: ignore[misc]
            samples.setdefault(name, []).append(rate)
            print(f"  {name}: {rate:,.0f} events/s", flush=True)

        for number in range(size.rounds + 1):
            print("warm-up" if number == 0 else f"round {number}", flush=True)
            if number == 1:
                samples.clear()
            await take("asyncpg, batched", lambda: ask(parts["asyncpg"], size.batched, BATCH, 4))
            await take("gateway, batched", lambda: over_http(gateway, key, size.batched, BATCH, 4))
            await take("sdk, batched", lambda: ask(parts["sdk"], size.batched, BATCH, 4))
            await take("bare, single", lambda: over_http(bare, key, size.single, 1, 64))
            await take("gateway, single", lambda: over_http(gateway, key, size.single, 1, 64))
    return {name: statistics.median(rates) for name, rates in samples.items()}


async def run(size: Size) -> list[Bar]:
    """Everything, on servers of its own."""
    root = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    async with (
        LocalStack.start(root, what="the benchmark", wipe_at_end=True) as local,
        ModelServer.start(root / "model") as model,
    ):
        servers = local.servers
        await migrate(servers.database_owner_url, serving_url=servers.database_url)
        owner = await asyncpg.connect(servers.database_owner_url)
        await owner.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        await create_tenant(owner, TENANT)
        key = await create_key(owner, TENANT, ["publish"], rate_per_minute=10_000_000)
        await owner.close()
        environment = child_environment(
            servers,
            extra={
                "OPENAI_BASE_URL": model.base_url,
                "OPENAI_API_KEY": model.api_key,
                "PENSTOCK_SECRET_KEYS": SecretBox.new_key(),
                "PENSTOCK_HOME": str(root / ".penstock"),
            },
        )
        found = await measure(servers, size, environment, key.key)
    return [
        Bar(
            "gateway, batched by 100, of asyncpg alone",
            found["gateway, batched"] / found["asyncpg, batched"],
            0.3,
        ),
        Bar(
            "gateway, single, of a route that stores nothing",
            found["gateway, single"] / found["bare, single"],
            0.5,
        ),
        Bar("SDK, batched by 100, of asyncpg alone", found["sdk, batched"] / found["asyncpg, batched"], 0.5),
    ]


def main() -> int:
    """Run and report."""
    options = arguments(__doc__).parse_args()
    size = Size(10_000, 3_000, 3) if options.quick else Size(50_000, 10_000, 5)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bars = runner.run(run(size))
    return report("gateway", bars, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())

"""Questions are answered over 100,000 chunks of real text: how soon, how many, from the right passages or not.

One run measures, as the worker's role with row-level security on: recall of the vector search against reading every
vector; what fusion brings; the time from publishing to the first token, less the model API's own time; and questions
per second of one worker process against a bare openai client that makes the same two calls. `--quick` asks fewer
questions, `--json` prints one JSON object last.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.answer_corpus import gather
from benchmarks.answer_place import ROOT, SLOTS, Place, Spent, model_api, worker
from benchmarks.answer_search import askable, measure_quality, measure_recall
from benchmarks.answer_shelf import (
    COLLECTION,
    TENANT,
    Shelf,
    embed,
    fill,
    forget_questions,
    load,
    store,
)
from benchmarks.bars import Bar, arguments, report
from infra.answer_stream import stream_key
from infra.bus import Bus, open_redis
from infra.database import Database
from infra.local.stack import LocalStack
from infra.migrate import migrate
from schemas.envelope import parse_event
from workers.heap import settle

CHUNKS = 100_000
RATES = (1, 10, 25, 50)
"""Questions per second at which latency is taken; the bar is that of the last."""
WARM = 40
"""Questions that are asked before anything is measured."""


@dataclass(slots=True)
class Desk:
    """Publishes questions, and hears their first tokens."""

    bus: Bus
    owner: asyncpg.Connection[Any]

    async def publish(self, questions: Sequence[str]) -> list[UUID]:
        """Publish questions as one call; their ids."""
        events = [
            parse_event({
                "specversion": "1.0", "id": str(uuid4()), "source": "bench", "type": "query.received",
                "data": {"collections": [COLLECTION], "question": question, "stream": True},
            })
            for question in questions
        ]  # fmt: skip
        accepted = await self.bus.publish(TENANT, events)
        return [one.event_id for one in accepted if one.event_id is not None]

    async def first_token(self, client: Any, question: str) -> tuple[UUID, float]:
        """Milliseconds from publishing a question until its first token can be read from its Redis stream."""
        began = time.perf_counter()
        [query_id] = await self.publish([question])
        key, seen = stream_key(str(query_id), 1), b"0-0"
        async with asyncio.timeout(30):
            while True:
                for _, entries in await client.xread({key: seen}, block=1000) or []:
                    if any(fields[b"event"] == b"token" for _, fields in entries):
                        return query_id, (time.perf_counter() - began) * 1000
                    seen = entries[-1][0]

    async def ended(self, ids: Sequence[UUID]) -> list[float]:
        """Wait until all are finished; when each was, as seconds."""
        sql = (
            "SELECT extract(epoch FROM finished_at)::float8 AS at FROM answers"
            " WHERE query_id = ANY ($1::uuid[]) AND status = 'answered' ORDER BY 1"
        )
        async with asyncio.timeout(200):
            while len(rows := await self.owner.fetch(sql, list(ids))) < len(ids):  # noqa: ASYNC110 - another process writes them
                await asyncio.sleep(0.5)
        return [row["at"] for row in rows]


@asynccontextmanager
async def desk(place: Place) -> AsyncIterator[tuple[Desk, Any]]:
    """A desk, and a client of Redis to follow answers with."""
    client = open_redis(place.servers.redis_url)
    owner = await asyncpg.connect(place.servers.database_owner_url)
    async with Database.open(place.servers.database_url, role="penstock_gateway") as database:
        bus = Bus(database, client)
        yield Desk(bus, owner), client
        await bus.aclose()
    await owner.close()
    await client.aclose(close_connection_pool=True)


async def measure_latency(place: Place, questions: Sequence[str], seconds: int) -> list[Bar]:
    """Publish questions at rising rates and time their first tokens; where it saturates can be seen."""
    # The corpus stays: looking through it for garbage would hold up the asker, and look like a slow answer.
    settle()
    cuts: list[float] = []
    rest = iter(questions)
    async with desk(place) as (asking, client), httpx2.AsyncClient(trust_env=False) as http:
        with worker(place) as process:
            # All at once, so that every connection has been used.
            await asyncio.gather(*(asking.first_token(client, one) for one in islice(rest, WARM)))
            for rate in RATES:
                await http.get(f"{place.model_url}/times")
                chosen = list(islice(rest, max(20, seconds * rate)))
                with Spent(place.servers, process.pid) as spent:
                    asked = await _at_rate(asking, client, chosen, rate)
                    await asking.ended([query_id for query_id, _ in asked])
                times = (await http.get(f"{place.model_url}/times")).json()
                own = [ms - times.get(one, 0.0) * 1000 for (_, ms), one in zip(asked, chosen, strict=True)]
                cuts = statistics.quantiles(own, n=100)
                print(
                    f"{rate}/s: first token, less the model's {statistics.fmean(times.values()) * 1000:.2f} ms:"
                    f" p50 {cuts[49]:.1f} p90 {cuts[89]:.1f} p99 {cuts[98]:.1f} ms; CPU per question: {spent.shown(len(chosen))}"
                )
                await _stages(asking.owner, [query_id for query_id, _ in asked])
    return [
        Bar("publish to first token, less the model's time, p50 ms", cuts[49], 15, below=True),
        Bar("publish to first token, less the model's time, p99 ms", cuts[98], 60, below=True),
    ]


async def _at_rate(
    asking: Desk, client: Any, questions: Sequence[str], rate: int
) -> list[tuple[UUID, float]]:
    began = time.perf_counter()
    running: list[asyncio.Task[tuple[UUID, float]]] = []
    for n, question in enumerate(questions):
        await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
        running.append(asyncio.create_task(asking.first_token(client, question)))
    return await asyncio.gather(*running)


async def _stages(owner: asyncpg.Connection[Any], ids: Sequence[UUID]) -> None:
    """Print how long each stage of these questions took."""
    rows = await owner.fetch(
        "SELECT key, percentile_cont(0.5) WITHIN GROUP (ORDER BY value::float8) AS half"
        " FROM answers, jsonb_each_text(timings_ms) WHERE query_id = ANY ($1::uuid[]) GROUP BY key",
        list(ids),
    )
    print("  median ms per stage:", ", ".join(f"{row['key']} {row['half']:.1f}" for row in rows), flush=True)


async def measure_rate(place: Place, questions: Sequence[str], rounds: int) -> Bar:
    """Questions per second of one worker process, as a share of the bare client's, in turns."""
    size = len(questions) // rounds
    ours: list[float] = []
    theirs: list[float] = []
    async with desk(place) as (asking, _):
        for n in range(rounds):
            some = questions[n * size : (n + 1) * size]
            theirs.append(bare_sample(place, some))
            ids: list[UUID] = []
            for at in range(0, size, 100):
                ids += await asking.publish(some[at : at + 100])
            with worker(place, "--burst"):
                ends = await asking.ended(ids)
            # The middle of the run: without the start of the process and the last questions, which run alone.
            low, high = size // 5, size * 9 // 10
            ours.append((high - low) / (ends[high] - ends[low]))
    print(f"questions/s: one worker process {ours}, bare openai client {theirs}", flush=True)
    return Bar(
        "questions/s of a worker process, times a bare openai client",
        statistics.median(ours) / statistics.median(theirs),
        0.6,
    )


def bare_sample(place: Place, questions: Sequence[str]) -> float:
    """Questions per second of the bare client, in a process of its own."""
    command = [sys.executable, str(ROOT / "benchmarks" / "answer_bare.py"), place.model_url, str(SLOTS)]
    done = subprocess.run(
        command, input=json.dumps(list(questions)).encode(), check=True, capture_output=True
    )
    return float(done.stdout)


def _shelf() -> Shelf:
    """The corpus with its vectors: so many pieces, none without a word that the model knows."""
    shelf = embed(gather(CHUNKS + 500))
    del shelf.corpus.pieces[CHUNKS:], shelf.ids[CHUNKS:]
    return replace(shelf, vectors=shelf.vectors[:CHUNKS])


async def measure(*, quick: bool, only: str | None, keep: Path | None) -> list[Bar]:
    """Prepare the corpus, or take one that was kept, then take every bar, or those of one part."""
    began = time.perf_counter()
    with ExitStack() as held:
        folder = keep or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        kept = load(folder)
        shelf = kept or _shelf()
        print(f"{len(shelf.ids):,} chunks embedded after {time.perf_counter() - began:.0f} s", flush=True)
        port = held.enter_context(model_api())
        async with LocalStack.start(folder, what="a benchmark", wipe_at_end=keep is None) as stack:
            servers = stack.servers
            await migrate(servers.database_owner_url, serving_url=servers.database_url)
            if kept is None:
                await fill(servers.database_owner_url, shelf)
                store(shelf, folder)
            await forget_questions(servers.database_owner_url)
            print(f"indexed after {time.perf_counter() - began:.0f} s", flush=True)
            return await _bars(Place(servers, port), shelf, quick=quick, only=only)


async def _bars(place: Place, shelf: Shelf, *, quick: bool, only: str | None) -> list[Bar]:
    kept = {piece.document for piece in shelf.corpus.pieces}
    items = [item for item in shelf.corpus.items if item.document in kept]
    asked = askable(shelf, items)
    seconds, rounds, size = (8, 3, 250) if quick else (20, 5, 500)
    spent = WARM + sum(max(20, seconds * rate) for rate in RATES)
    bars: list[Bar] = []
    if only in {None, "search"}:
        async with Database.open(place.servers.database_url, role="penstock_worker", size=2) as database:
            bars += await measure_recall(database, shelf, items[: 100 if quick else 400])
            bars += await measure_quality(database, shelf, items[: 250 if quick else 1000])
    if only in {None, "latency"}:
        bars += await measure_latency(place, asked[:spent], seconds)
    if only in {None, "rate"}:
        bars.append(await measure_rate(place, asked[spent : spent + rounds * size], rounds))
    return bars


def main() -> int:
    """Measure and say which bars are kept."""
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=["search", "latency", "rate"], help="the bars of one part")
    parser.add_argument("--keep", type=Path, help="a folder in which the filled servers stay, for a next run")
    chosen = parser.parse_args()
    bars = uvloop.run(measure(quick=chosen.quick, only=chosen.only, keep=chosen.keep))
    return report("answer", bars, as_json=chosen.json)


if __name__ == "__main__":
    raise SystemExit(main())

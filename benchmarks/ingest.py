"""Documents pass from publish to searchable, and raw COPY, pgai and LlamaIndex beside them; the ratios are the result.

Real text (`ingest_corpus`), ready-made vectors from a stub that costs nothing (`ingest_stub`), real worker processes
and the embedded servers (`ingest_stack`). Peers run in venvs of their own (`make peers`) against the same stub and the
same PostgreSQL; they cut the same documents with their own splitters, into pieces of about our size. `--quick`: every
bar, smaller.
"""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path

import structlog
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ingest_bars as measure
from benchmarks.bars import Bar, arguments, report
from benchmarks.ingest_corpus import documents
from benchmarks.ingest_stack import Stack, open_stack

NARROW, WIDE = 256, 1536


async def speed(stack: Stack, *, quick: bool) -> list[Bar]:
    """From published to searchable: against COPY, and against peers with and without an index."""
    some = documents(2500 if quick else 4000)
    few = some[: len(some) * 2 // 5]
    texts = [text for one in some for text in one.chunks]
    narrow, wide = await stack.stub(NARROW, texts), await stack.stub(WIDE, texts)
    bars = [
        Bar("stub, embeddings/s at 1536 dimensions", measure.stub_rate(wide, texts, WIDE), 10_000),
        Bar(
            "client CPU ms per vector at 1536", await measure.client_cpu(wide, texts, WIDE), 0.15, below=True
        ),
    ]
    each = len(texts) / len(some)
    bare: dict[str, float] = {}
    async with stack.workers(narrow, measure.PROCESSES):
        ours, copy = await measure.against_copy(stack, some, NARROW, 2 if quick else 5)
        print(f"256: ours {ours:,.0f}, COPY {copy:,.0f} chunks/s, live index")
        bars.append(Bar("published to searchable, times COPY, 256", ours / copy, 0.7))
        free = [await measure.without_index(stack, some, NARROW) for _ in range(1 if quick else 3)]
        for name in measure.PEERS:
            bare[name] = await measure.peer(stack, name, narrow, some, NARROW, indexed=False)
            free.append(await measure.without_index(stack, some, NARROW))
        mine = sorted(free)[len(free) // 2]
        print(f"256, no index: ours {mine:,.0f} documents/s, {mine * each:,.0f} chunks/s")
        bars += [Bar(f"no index, times {name}", mine / rate, 5) for name, rate in bare.items()]
        for name in measure.PEERS:
            rate = await measure.peer(stack, name, narrow, some, NARROW, indexed=True)
            goal = min(5 * rate, 0.7 * copy / each) if not math.isnan(rate) else math.nan
            bars.append(
                Bar(f"live index, times the lesser of 5 x {name} and 0.7 x COPY", ours / each / goal, 1)
            )
        faster, calls = await measure.again(stack, narrow, some, NARROW)
        bars += [
            Bar("unchanged corpus again, times faster", faster, 5),
            Bar("unchanged corpus again, embedding calls", calls, 0, below=True),
        ]
    async with stack.workers(wide, measure.PROCESSES):
        ours, copy = await measure.against_copy(stack, few, WIDE, 2 if quick else 3)
        print(f"1536: ours {ours:,.0f}, COPY {copy:,.0f} chunks/s, live index")
        bars.append(Bar("published to searchable, times COPY, 1536", ours / copy, 0.7))
    return bars


async def limits(stack: Stack, *, quick: bool) -> list[Bar]:
    """The rate that is used, and the memory that waiting costs."""
    stub = stack.stubs[NARROW]
    small = stack.small(1200 if quick else 3000)
    used, refused = await measure.rate_used(stack, stub, small, NARROW, 20 if quick else 90)
    size, growth = await measure.memory(stack, stub, 20_000, 100_000 if quick else 1_000_000, NARROW)
    return [
        Bar("part of 500 requests a minute used by 3 processes", used, 0.95),
        Bar("refusals per request meanwhile", refused, 0.02, below=True),
        Bar("MB of a worker while 20,000 documents wait", size, 400, below=True),
        Bar("its memory when many more jobs wait, times", growth, 1.05, below=True),
    ]


async def main(*, quick: bool) -> list[Bar]:
    """Everything, on one set of servers."""
    async with open_stack() as stack:
        return [*await speed(stack, quick=quick), *await limits(stack, quick=quick)]


if __name__ == "__main__":
    chosen = arguments(__doc__).parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    raise SystemExit(report("ingest", uvloop.run(main(quick=chosen.quick)), as_json=chosen.json))

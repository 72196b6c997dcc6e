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
from functools import cache
from pathlib import Path

import structlog
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ingest_bars as measure
from benchmarks.bars import Bar, arguments, report
from benchmarks.ingest_corpus import Document, documents
from benchmarks.ingest_stack import Stack, open_stack

NARROW, WIDE = 256, 1536


async def parse(stack: Stack, *, quick: bool) -> list[Bar]:
    """What the stub serves, and what taking a vector costs the client."""
    texts = [text for one in corpus(quick=quick) for text in one.chunks]
    wide = await stack.stub(WIDE, texts)
    return [
        Bar("stub, embeddings/s at 1536 dimensions", measure.stub_rate(wide, texts, WIDE), 10_000),
        Bar(
            "client CPU ms per vector at 1536", await measure.client_cpu(wide, texts, WIDE), 0.15, below=True
        ),
    ]


async def copy(stack: Stack, *, quick: bool) -> list[Bar]:
    """From published to searchable with a live index, against COPY."""
    bars: list[Bar] = []
    some = corpus(quick=quick)
    for width, part, rounds in (NARROW, some, 2 if quick else 5), (WIDE, some[: len(some) * 2 // 5], 3):
        stub = await stack.stub(width, [text for one in some for text in one.chunks])
        async with stack.workers(stub, measure.PROCESSES):
            ours, bare = await measure.against_copy(stack, part, width, rounds)
        print(f"{width}: ours {ours:,.0f}, COPY {bare:,.0f} chunks/s, live index")
        bars.append(Bar(f"published to searchable, times COPY, {width}", ours / bare, 0.7))
    return bars


async def peers(stack: Stack, *, quick: bool) -> list[Bar]:
    """Against pgai and LlamaIndex in turns, without an index and with one."""
    some = corpus(quick=quick)
    each = sum(len(one.chunks) for one in some) / len(some)
    bare: dict[str, float] = {}
    stub = await stack.stub(NARROW, [text for one in some for text in one.chunks])
    async with stack.workers(stub, measure.PROCESSES):
        free = [await measure.without_index(stack, some, NARROW) for _ in range(1 if quick else 3)]
        for name in measure.PEERS:
            bare[name] = await measure.peer(stack, name, stub, some, NARROW, indexed=False)
            free.append(await measure.without_index(stack, some, NARROW))
        mine = sorted(free)[len(free) // 2]
        print(f"256, no index: ours {mine:,.0f} documents/s, {mine * each:,.0f} chunks/s")
        bars = [Bar(f"no index, times {name}", mine / rate, 5) for name, rate in bare.items()]
        ours, raw = await measure.against_copy(stack, some, NARROW, 1 if quick else 3)
        for name in measure.PEERS:
            rate = await measure.peer(stack, name, stub, some, NARROW, indexed=True)
            goal = min(5 * rate, 0.7 * raw / each) if not math.isnan(rate) else math.nan
            bars.append(
                Bar(f"live index, times the lesser of 5 x {name} and 0.7 x COPY", ours / each / goal, 1)
            )
    return bars


async def again(stack: Stack, *, quick: bool) -> list[Bar]:
    """An unchanged corpus, published a second time."""
    some = corpus(quick=quick)
    stub = await stack.stub(NARROW, [text for one in some for text in one.chunks])
    async with stack.workers(stub, measure.PROCESSES):
        faster, calls = await measure.again(stack, stub, some, NARROW)
    return [
        Bar("unchanged corpus again, times faster", faster, 5),
        Bar("unchanged corpus again, embedding calls", calls, 0, below=True),
    ]


async def limits(stack: Stack, *, quick: bool) -> list[Bar]:
    """The rate that is used, and the memory that waiting costs."""
    stub = await stack.stub(NARROW, [text for one in corpus(quick=quick) for text in one.chunks])
    small = stack.small(1200 if quick else 3000)
    used, refused = await measure.rate_used(stack, stub, small, NARROW, 20 if quick else 90)
    size, growth = await measure.memory(stack, stub, 20_000, 100_000 if quick else 1_000_000, NARROW)
    return [
        Bar("part of 500 requests a minute used by 3 processes", used, 0.95),
        Bar("refusals per request meanwhile", refused, 0.02, below=True),
        Bar("MB of a worker while 20,000 documents wait", size, 400, below=True),
        Bar("its memory when many more jobs wait, times", growth, 1.05, below=True),
    ]


PARTS = {part.__name__: part for part in (parse, copy, peers, again, limits)}


@cache
def corpus(*, quick: bool) -> list[Document]:
    """The documents that every part publishes."""
    return documents(2500 if quick else 4000)


async def main(*, quick: bool, only: str | None) -> list[Bar]:
    """Every part, or one, on one set of servers."""
    bars: list[Bar] = []
    async with open_stack() as stack:
        for name, part in PARTS.items():
            if only in {None, name}:
                bars += await part(stack, quick=quick)
    return bars


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=list(PARTS), help="the bars of one part")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    bars = uvloop.run(main(quick=chosen.quick, only=chosen.only))
    raise SystemExit(report("ingest", bars, as_json=chosen.json))

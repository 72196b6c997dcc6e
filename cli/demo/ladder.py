"""The ladder: held-out questions on every rung, asked by the command that anybody would use, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from cli.demo.corpus import COLLECTION
from cli.demo.examples import DATASET
from cli.demo.screen import Screen
from cli.demo.stack import clean_environment
from schemas.errors import CallFailed

RUNGS = ["template", "few-shot", "retrieval", "tuned"]
COLUMNS = ("rung", "quality", "95 % interval", "tokens per answer", "USD per 1,000", "ms")


async def climb(home: Path, tenant: str) -> dict[str, Any]:
    """What `penstock train compare` says of the demo's dataset.

    Raises:
        CallFailed: it failed, or left a rung out.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "train", "compare", DATASET,
        "--tenant", tenant, "--collection", COLLECTION, "--json",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**clean_environment(), "PENSTOCK_HOME": str(home)},
        cwd=home.parent,  # no .env of the caller's
    )  # fmt: skip
    said, complained = await process.communicate()
    if process.returncode != 0:
        tail = complained.decode(errors="replace").strip().splitlines()[-3:]
        raise CallFailed(f"penstock train compare ended with {process.returncode}: {' '.join(tail)}")
    found: dict[str, Any] = json.loads(said)
    rungs = [one["rung"] for one in found["rungs"]]
    if rungs != RUNGS:
        raise CallFailed(f"the ladder has the rungs {', '.join(rungs)}")
    return found


def show(screen: Screen, found: dict[str, Any]) -> None:
    """A line for each rung, and the advice."""
    rows = [
        (
            one["rung"],
            f"{one['quality']:.3f}",
            f"{one['quality_low']:.3f} … {one['quality_high']:.3f}",
            one["tokens_per_answer"],
            one["usd_per_1000"],
            one["latency_ms"],
        )
        for one in found["rungs"]
    ]
    screen.table(f"{found['rungs'][0]['examples']} held-out questions on every rung", COLUMNS, rows)
    screen.say(f"   {found['advice']}")

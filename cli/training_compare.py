"""`penstock train compare`: a dataset's held-out questions on every rung of the ladder, with what each costs and brings."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.run import run_async, serving_settings
from cli.show import AsJson, print_json, print_rows

if TYPE_CHECKING:
    from workers.train.ladder import Comparison

COLUMNS = (
    "rung",
    "model",
    "quality",
    "quality_low",
    "quality_high",
    "gain",
    "gain_low",
    "errors",
    "tokens_per_answer",
    "usd_per_1000",
    "latency_ms",
)


def compare(
    dataset: str,
    tenant: Annotated[
        str, typer.Option(help="Whose dataset; the local stack's tenant unless given.")
    ] = "dev",
    collection: Annotated[
        list[str] | None, typer.Option(help="Retrieve from this collection; the dataset's own unless given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=5, max=500, help="Held-out questions at most.")] = 100,
    *,
    as_json: AsJson = False,
) -> None:
    """Compare template, few-shot, retrieval and the tuned model on what is held out. Each answer is paid for."""

    async def act() -> Comparison:
        from workers.host import open_resources
        from workers.pools import POOLS
        from workers.train.asking import Desk
        from workers.train.ladder import compare as climb

        async with AsyncExitStack() as held:
            resources = await open_resources(serving_settings(), [POOLS["train"]], held)
            assert resources.models is not None
            return await climb(Desk(resources, resources.models, tenant), dataset, collection or [], limit)

    found = run_async(act())
    if as_json:
        print_json(asdict(found))
        return
    print_rows(found.rungs, COLUMNS, as_json=False)
    typer.echo(f"\n{found.advice}")

"""`penstock collections reembed`: a collection goes to another embedding model, and back; an operator pays and watches."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.run import is_terminal, run_async, serving_settings, start_logging
from cli.show import AsJson, print_fields


def reembed(
    name: Annotated[str, typer.Argument(help="The collection.")],
    model: Annotated[str, typer.Option(help="The embedding model it is to have; the old one, to go back.")],
    tenant: Annotated[str, typer.Option(help="Whose collection.")],
    *,
    dimensions: Annotated[int | None, typer.Option(min=1, max=4000, help="As now unless given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost; do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Embed a collection with another model, serve from the old one meanwhile, then switch at once. Operator.

    Stopping it loses nothing: run it again to go on. Going back is the same command with the old model.
    """

    async def act() -> dict[str, Any]:
        from infra.budget import Budget
        from infra.bus import open_redis
        from infra.collections import provider_of
        from infra.database import Database
        from infra.governor import Governor
        from infra.llm import ModelApi
        from infra.prices import load_prices
        from infra.reembed import Reembedding, find_target

        settings = serving_settings()
        start_logging(settings, form="console")
        async with (
            Database.open(
                settings.need("DATABASE_URL"), role="penstock_worker", size=2, application="penstock reembed"
            ) as database,
            Budget(
                database, load_prices(settings.prices), settings.budget_day, settings.budget_month
            ) as budget,
        ):
            provider = provider_of(settings.openai_base_url)
            target = await find_target(
                database, tenant, name, provider=provider, model=model, dimensions=dimensions
            )
            told: dict[str, Any] = {
                "collection": name,
                "from": target.current,
                "to": model,
                "dimensions": target.dimensions,
            }
            told |= asdict(await Reembedding(database, None, budget, target).estimate())
            if dry_run or target.is_current:
                return {**told, "state": "nothing to do" if target.is_current else "dry run"}
            client = open_redis(settings.need("REDIS_URL"))
            try:
                async with ModelApi.open(
                    settings.openai_base_url,
                    settings.need("OPENAI_API_KEY"),
                    timeout=settings.model_timeout,
                    governor=Governor.of(client, settings),
                ) as models:
                    show = _Progress(told["missing"])
                    made = await Reembedding(database, models, budget, target).run(show)
            finally:
                await client.aclose(close_connection_pool=True)
            return {**told, "made": made, "state": "switched"}

    print_fields(run_async(act()), as_json=as_json)


class _Progress:
    """One line on a terminal, nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def __call__(self, made: int) -> None:
        self._done += made
        if is_terminal():
            typer.echo(f"\r{self._done:,} of {self._total:,} vectors", nl=False, err=True)

"""`penstock train …`: look at runs, start, cancel, promote, roll back, export. Operator commands on the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer

from cli.operate import open_client
from cli.plot import loss_svg
from cli.run import owner_database, run_async, serving_settings
from cli.show import AsJson, print_fields, print_json, print_rows, spark
from cli.training_compare import compare

if TYPE_CHECKING:
    from infra.bus import Bus
    from infra.database import Database

train_app = typer.Typer(
    no_args_is_help=True, help="Training runs: look, start, cancel, promote, roll back, export."
)
Tenant = Annotated[str, typer.Option(help="Whose runs; the local stack's tenant unless given.")]
DEV = "dev"
ACTOR = "operator"


class Split(StrEnum):
    """Which examples of a run."""

    TRAIN = "train"
    VALIDATION = "validation"
    HOLDOUT = "holdout"


@asynccontextmanager
async def _bus() -> AsyncIterator[tuple[Database, Bus]]:
    from infra.bus import Bus

    async with owner_database() as database, open_client() as client:
        bus = Bus(database, client)
        yield database, bus
        await bus.aclose()


@train_app.command("status")
def status(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    tenant: Tenant = DEV,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 20,
    *,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""

    async def find() -> list[dict[str, Any]]:
        from infra.training_runs import list_runs

        async with owner_database() as database:
            return [asdict(run) for run in await list_runs(database, tenant, dataset=dataset, limit=limit)]

    columns = ("run_id", "dataset", "status", "examples", "model", "started_at", "ended_at")
    print_rows(run_async(find()), columns, as_json=as_json, empty="No training runs.")


@train_app.command("show")
def show(
    run_id: UUID,
    tenant: Tenant = DEV,
    *,
    svg: Annotated[Path | None, typer.Option(help="Write the plot of its losses to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: its losses, its evaluation and its timeline."""

    async def find() -> dict[str, Any]:
        from infra.training_runs import show_run

        async with owner_database() as database:
            return asdict(await show_run(database, tenant, run_id))

    story = run_async(find())
    if svg is not None:
        title = f"{story['run']['dataset']} {story['run']['run_id']}"
        svg.write_text(loss_svg(story["losses"], title), encoding="utf-8")
    if as_json:
        print_json(story)
        return
    run = story["run"]
    print_fields(
        {name: run[name] for name in ("run_id", "dataset", "status", "base_model", "model", "reason")},
        as_json=False,
    )
    if run["tainted_at"] is not None:
        typer.echo("Examples that it was made of are erased; its model has learned them all the same.")
    for title, column in (("train loss", 1), ("validation loss", 2)):
        values = [line[column] for line in story["losses"] if line[column] is not None]
        if values:
            typer.echo(f"{title:<16} {spark(values)}  {values[0]:.3f} → {values[-1]:.3f}")
    evaluation = run["evaluation"] or {}
    if evaluation.get("table"):
        typer.echo()
        print_rows(evaluation["table"], list(evaluation["table"][0]), as_json=False)
        typer.echo(f"{'promote' if evaluation.get('promote') else 'reject'}: {evaluation.get('reason')}")
    typer.echo()
    print_rows(
        [line for line in story["history"] if line["step"] is None], ("at", "what", "details"), as_json=False
    )


@train_app.command("start")
def start(
    dataset: str,
    tenant: Tenant = DEV,
    base_model: Annotated[str | None, typer.Option(help="Another base model than the dataset's.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "started by hand",
    *,
    as_json: AsJson = False,
) -> None:
    """Train on what the dataset has now, without waiting for its threshold."""
    from schemas.envelope import Event

    data: Mapping[str, Any] = {"dataset": dataset, "reason": reason} | (
        {"base_model": base_model} if base_model else {}
    )
    event = Event(
        id=str(uuid4()), source="penstock-cli", type="training.batch_ready", data=dict(data), subject=dataset
    )

    async def act() -> dict[str, Any]:
        async with _bus() as (_, bus):
            [accepted] = await bus.publish(tenant, [event])
            return accepted.as_dict()

    print_fields(run_async(act()), as_json=as_json)


@train_app.command("cancel")
def cancel(run_id: UUID, tenant: Tenant = DEV) -> None:
    """Stop a run; its examples are free again."""

    async def act() -> None:
        from infra.training_runs import cancel_run

        async with owner_database() as database:
            await cancel_run(database, tenant, run_id, actor=ACTOR)

    run_async(act())
    typer.echo("the run's next step cancels it")


@train_app.command("pause")
def pause(run_id: UUID, tenant: Tenant = DEV) -> None:
    """Hold a run, and its job where the trainer can, until it is resumed."""

    async def act() -> None:
        from infra.training_runs import pause_run

        async with owner_database() as database:
            await pause_run(database, tenant, run_id, actor=ACTOR)

    run_async(act())
    typer.echo("the run's next step holds it")


@train_app.command("resume")
def resume(run_id: UUID, tenant: Tenant = DEV) -> None:
    """Let a run that is held go on."""

    async def act() -> None:
        from infra.training_runs import resume_run

        async with owner_database() as database:
            await resume_run(database, tenant, run_id, actor=ACTOR)

    run_async(act())
    typer.echo("the run's next step goes on")


@train_app.command("promote")
def promote(run_id: UUID, tenant: Tenant = DEV, *, as_json: AsJson = False) -> None:
    """Point the run's alias at its model, whatever the evaluation said."""

    async def act() -> str:
        from infra.model_aliases import promote_run

        async with _bus() as (database, bus):
            alias, jobs = await promote_run(
                database, tenant, run_id, default=serving_settings().chat_model, actor=ACTOR
            )
            await bus.push(jobs)
            return alias

    print_fields({"alias": run_async(act()), "run_id": str(run_id)}, as_json=as_json)


@train_app.command("rollback")
def rollback(
    alias: str,
    tenant: Tenant = DEV,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "rolled back by hand",
    *,
    as_json: AsJson = False,
) -> None:
    """Point an alias at its previous model."""

    async def act() -> str:
        from infra.model_aliases import rollback_alias

        async with _bus() as (database, bus):
            model, jobs = await rollback_alias(database, tenant, alias, reason=reason, actor=ACTOR)
            await bus.push(jobs)
            return model

    print_fields({"alias": alias, "model": run_async(act())}, as_json=as_json)


@train_app.command("export")
def export(
    run_id: Annotated[UUID | None, typer.Argument(help="The run; none exports free examples.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Export this dataset's free examples.")] = None,
    split: Annotated[Split, typer.Option(help="Which examples.")] = Split.TRAIN,
    tenant: Tenant = DEV,
    *,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="What each line goes back to: answer, question, documents.")
    ] = False,
) -> None:
    """Write examples as JSONL, byte for byte as the trainer got them, or their lineage, line by line."""
    from schemas.errors import BadInput

    if (run_id is None) == (dataset is None):
        raise BadInput(
            "give a run or a dataset", field="RUN_ID", fix="penstock train export RUN, or --dataset D"
        )

    async def act() -> None:
        from infra.training_runs import export_free, export_run

        async with owner_database() as database:
            if run_id is not None:
                lines = export_run(database, tenant, run_id, split.value, lineage=lineage)
            else:
                lines = export_free(database, tenant, str(dataset), split.value, lineage=lineage)
            async for line in lines:
                typer.echo(line.rstrip(b"\n"))

    run_async(act())


train_app.command("compare")(compare)


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.add_typer(train_app, name="train", rich_help_panel="Operate")

"""`penstock erase …`: a document, a question, a person or a tenant is forgotten; an operator's command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.operate import open_client
from cli.run import owner_database, run_async
from cli.show import AsJson, print_json

if TYPE_CHECKING:
    from infra.erasure import Target

erase_app = typer.Typer(
    no_args_is_help=True,
    help="Forget for good: payloads, passages, answers, examples and caches go; ids, hashes and states stay.",
)
Tenant = Annotated[str, typer.Option(help="Whose.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]


@erase_app.command("document")
def document(
    collection: str, document_id: str, *, tenant: Tenant, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Forget a document in all its versions, and the answers and examples that were made of it."""
    from infra.erasure import Target

    _erase(tenant, Target("document", document_id, collection), dry_run=dry_run, as_json=as_json)


@erase_app.command("query")
def query(query_id: str, *, tenant: Tenant, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Forget a question with its answer, its feedback and its examples."""
    from infra.erasure import Target

    _erase(tenant, Target("query", query_id), dry_run=dry_run, as_json=as_json)


@erase_app.command("subject")
def subject(subjectref: str, *, tenant: Tenant, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Forget a person: everything that was published with this `subjectref`, and what was made of it."""
    from infra.erasure import Target

    _erase(tenant, Target("subject", subjectref), dry_run=dry_run, as_json=as_json)


@erase_app.command("tenant")
def whole_tenant(
    tenant: Annotated[str, typer.Argument(help="Whose data.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Forget all that a tenant has; its keys are revoked, its name, usage and audit trail stay."""
    from infra.erasure import Target

    if not (yes or dry_run or typer.confirm(f"Erase everything of {tenant}?", err=True)):
        raise typer.Abort
    _erase(tenant, Target("tenant", tenant), dry_run=dry_run, as_json=as_json)


def _erase(tenant: str, target: Target, *, dry_run: bool, as_json: bool) -> None:
    async def act() -> dict[str, Any]:
        from infra.erasure import erase

        async with owner_database() as database, open_client() as client:
            return (await erase(database, client, tenant, target, dry_run=dry_run)).as_dict()

    done = run_async(act())
    if as_json:
        print_json(done)
        return
    touched = {name: count for name, count in done["counts"].items() if count}
    if not touched:
        typer.echo("Nothing of it is left.")
    for name, count in touched.items():
        typer.echo(f"{count:>8}  {name.replace('_', ' ')}")
    for run_id in done["tainted_runs"]:
        typer.echo(f"tainted: run {run_id}; `penstock train show` has its model")
    if dry_run:
        typer.echo("Nothing was changed.")


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.add_typer(erase_app, name="erase", rich_help_panel="Accounts")

"""`penstock collections`, `templates` and `models`: what is set for a tenant is listed and changed through the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client_http import GatewayRefused, open_api, part
from cli.show import AsJson, print_fields, print_json, print_rows
from schemas.errors import BadInput

collections_app = typer.Typer(no_args_is_help=True, help="Collections: what documents are kept in.")
templates_app = typer.Typer(no_args_is_help=True, help="Prompt templates, in numbered versions.")
models_app = typer.Typer(no_args_is_help=True, help="Tuned models, and what aliases mean.")
COLLECTIONS = ("name", "model", "dimensions", "language", "documents", "chunks", "settings")
MODELS = ("model", "base_model", "dataset", "run_status", "aliases", "shutdown_date", "created_at")
ALIASES = ("alias", "model", "previous", "changed_at")
Language = Annotated[
    str | None,
    typer.Option(help="For full-text search: english, german, simple …; fixed by the first document."),
]
ChunkSize = Annotated[int | None, typer.Option(min=32, max=2048, help="Tokens of a chunk at most.")]
Overlap = Annotated[int | None, typer.Option(min=0, help="Tokens that a chunk shares with the one before.")]
Similarity = Annotated[
    float | None, typer.Option(min=-1, max=1, help="What a passage must reach to count as evidence.")
]


@collections_app.command("list")
def list_collections(*, as_json: AsJson = False) -> None:
    """List the collections with what they hold."""
    with open_api() as api:
        rows = list(api.pages("/v1/collections"))
    shown = rows if as_json else [{**row, "documents": _counts(row["documents"])} for row in rows]
    print_rows(shown, COLLECTIONS, as_json=as_json, empty="No collections. The first document makes one.")


def _counts(documents: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(documents.items())) or "none"


@collections_app.command("create")
def create_collection(
    name: str,
    language: Language = None,
    *,
    chunk_size: ChunkSize = None,
    overlap: Overlap = None,
    min_similarity: Similarity = None,
    as_json: AsJson = False,
) -> None:
    """Make a collection before its first document, to choose its language."""
    body = _collection_body(language, chunk_size, overlap, min_similarity)
    with open_api(admin=True) as api:
        try:
            api.call("GET", f"/v1/collections/{part(name)}")
        except GatewayRefused as error:
            if error.http_status != 404:
                raise
        else:
            raise BadInput(
                f"the collection {name} exists already", field="NAME", fix="use `penstock collections set`"
            )
        print_fields(api.call("PUT", f"/v1/collections/{part(name)}", body), as_json=as_json)


@collections_app.command("set")
def set_collection(
    name: str,
    language: Language = None,
    *,
    chunk_size: ChunkSize = None,
    overlap: Overlap = None,
    min_similarity: Similarity = None,
    as_json: AsJson = False,
) -> None:
    """Change a collection's settings; a new way of cutting applies to documents that come later."""
    body = _collection_body(language, chunk_size, overlap, min_similarity)
    if not body:
        raise BadInput("nothing is to be set", field="options", fix="give --language, --chunk-size, …")
    with open_api(admin=True) as api:
        api.call("GET", f"/v1/collections/{part(name)}")
        print_fields(api.call("PUT", f"/v1/collections/{part(name)}", body), as_json=as_json)


@collections_app.command("drop")
def drop_collection(
    name: str,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop a collection with its documents. Documents that are on their way go too; later ones make it anew."""
    with open_api(admin=True) as api:
        held = api.call("GET", f"/v1/collections/{part(name)}")
        documents = sum(count for status, count in held["documents"].items() if status != "purged")
        if not (yes or typer.confirm(f"Drop {name} with {documents} documents?", err=True)):
            raise typer.Abort
        api.call("DELETE", f"/v1/collections/{part(name)}")
    print_fields({"dropped": name, "documents": documents, "chunks": held["chunks"]}, as_json=as_json)


def _collection_body(
    language: str | None, chunk_size: int | None, overlap: int | None, min_similarity: float | None
) -> dict[str, Any]:
    chunking = {
        name: value for name, value in (("size", chunk_size), ("overlap", overlap)) if value is not None
    }
    given = {"language": language, "chunking": chunking or None, "min_similarity": min_similarity}
    return {name: value for name, value in given.items() if value is not None}


@templates_app.command("list")
def list_templates(*, as_json: AsJson = False) -> None:
    """List the newest version of each template."""
    with open_api() as api:
        rows = list(api.pages("/v1/templates"))
    print_rows(
        rows, ("name", "version", "created_at"), as_json=as_json, empty="No templates; `default` is built in."
    )


@templates_app.command("put")
def put_template(
    name: str,
    path: Annotated[Path, typer.Argument(help="The system message as text, or a whole template as .json.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Keep a new version of a template; the same text again makes none."""
    with open_api(admin=True) as api:
        kept = api.call("PUT", f"/v1/templates/{part(name)}", _template_body(path))
    print_fields({"name": kept["name"], "version": kept["version"]} if not as_json else kept, as_json=as_json)


@templates_app.command("diff")
def diff_template(name: str, path: Path) -> None:
    """Show what a file would change in a template; exit code 1 when it would."""
    import difflib

    with open_api() as api:
        kept = api.call("GET", f"/v1/templates/{part(name)}")
    body = kept["body"]
    lines = difflib.unified_diff(
        _as_lines(body),
        _as_lines({**body, **_template_body(path)}),
        f"{name} (version {kept['version']})",
        str(path),
        lineterm="",
    )
    changed = list(lines)
    for line in changed:
        typer.secho(line, fg={"+": "green", "-": "red"}.get(line[:1]))
    if changed:
        raise typer.Exit(1)


def _template_body(path: Path) -> dict[str, Any]:
    import json

    try:
        text = path.read_text(encoding="utf-8")
        body = json.loads(text) if path.suffix.lower() == ".json" else {"system": text.strip()}
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", field="PATH") from None
    except ValueError:
        raise BadInput(f"{path} is not UTF-8 text or JSON", field="PATH") from None
    if not isinstance(body, dict):
        raise BadInput(f"{path} is not a JSON object", field="PATH")
    return body


def _as_lines(body: dict[str, Any]) -> list[str]:
    settings = [f"{name}: {value}" for name, value in sorted(body.items()) if name != "system"]
    return [*settings, "", *str(body["system"]).splitlines()]


@models_app.command("list")
def list_models(*, as_json: AsJson = False) -> None:
    """List tuned models."""
    with open_api() as api:
        rows = list(api.pages("/v1/models"))
    print_rows(rows, MODELS, as_json=as_json, empty="No tuned models yet.")


@models_app.command("aliases")
def list_aliases(*, as_json: AsJson = False) -> None:
    """List what aliases mean now."""
    with open_api() as api:
        rows = api.call("GET", "/v1/models")["aliases"]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ALIASES, as_json=False)

"""`penstock publish …`: files and folders go to the gateway with progress, and a table says what was refused and why."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client_http import read_json_option
from cli.client_load import publish_all
from cli.show import AsJson
from schemas.errors import BadInput

if TYPE_CHECKING:
    from producers.files import Bad, Item

app = typer.Typer(
    no_args_is_help=True,
    help="Publish documents, examples, batches and events. Run it again to go on or to update.",
)
MAX_EXAMPLES = 1000
Paths = Annotated[
    list[Path],
    typer.Argument(
        help="Files and quoted patterns (docs/**/*.md); folders where documents are meant; - for standard input."
    ),
]
DatasetOption = Annotated[str, typer.Option("--dataset", "-d", help="The dataset.")]


@app.command("document")
def document(
    paths: Paths,
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="The collection; made when it is new.")
    ],
    root: Annotated[
        Path | None, typer.Option(help="Ids are paths below this folder; the current one unless given.")
    ] = None,
    metadata: Annotated[str | None, typer.Option(help="JSON for every document, for filters.")] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until documents are searchable; 0 does not wait.")
    ] = 60.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Publish files as documents, and JSONL files as one document per line; unchanged ones are skipped."""
    from producers.files import Bad, document_of, expand, find_files, read_lines, record_of

    shared = read_json_option(metadata, "--metadata")
    if shared is not None and not isinstance(shared, dict):
        raise BadInput("--metadata must be a JSON object", field="--metadata")
    records, plain = _split(expand(paths))
    files = list(find_files(plain))

    def items() -> Iterator[Item | Bad]:
        base = root or Path.cwd()
        for path in files:
            yield path if isinstance(path, Bad) else document_of(path, collection, base, shared)
        for path in records:
            for line in _lines(path, read_lines):
                yield line if isinstance(line, Bad) else record_of(*line, collection)

    publish_all(
        items(),
        total=_total(records, len(files)),
        kind="document.added",
        collection=collection,
        wait=wait,
        as_json=as_json,
    )


@app.command("example")
def example(paths: Paths, dataset: DatasetOption, *, as_json: AsJson = False) -> None:
    """Publish training examples: JSONL, one conversation per line as OpenAI's fine-tuning takes it."""
    from producers.files import Bad, example_of, expand, read_lines

    given = expand(paths)

    def items() -> Iterator[Item | Bad]:
        for path in given:
            for line in _lines(path, read_lines):
                yield line if isinstance(line, Bad) else example_of(*line, dataset)

    publish_all(items(), total=_total(given), kind="example.recorded", as_json=as_json)


@app.command("batch")
def batch(
    paths: Paths,
    dataset: DatasetOption,
    base_model: Annotated[str | None, typer.Option(help="In place of the dataset's.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why now; kept with the run.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask for a training run on these examples now: one JSONL file, one run; at most 1,000 examples each."""
    from producers.files import Bad, batch_of, expand, read_lines

    given = expand(paths)
    more = {"base_model": base_model, "reason": reason}

    def items() -> Iterator[Item | Bad]:
        for path in given:
            found = list(_lines(path, read_lines))
            bad = [line for line in found if isinstance(line, Bad)]
            if bad:
                yield from bad
            elif len(found) > MAX_EXAMPLES:
                many = f"{len(found)} examples are more than {MAX_EXAMPLES}"
                yield Bad(
                    str(path),
                    BadInput(
                        many, field="examples", fix="publish them with `penstock publish example` first"
                    ),
                )
            else:
                yield batch_of(
                    str(path), dataset, [one[1] for one in found if not isinstance(one, Bad)], more
                )

    publish_all(items(), total=len(given), kind="training.batch_ready", as_json=as_json)


@app.command("event")
def event(paths: Paths, *, as_json: AsJson = False) -> None:
    """Publish CloudEvents as they stand in JSON (one, or an array) and JSONL files."""
    from producers.files import Bad, event_of, expand, read_lines

    given = expand(paths)

    def items() -> Iterator[Item | Bad]:
        for path in given:
            found = _lines(path, read_lines) if _is_lines(path) else _objects(path)
            for one in found:
                yield one if isinstance(one, Bad) else event_of(*one)

    publish_all(
        items(), total=_total(given) if all(map(_is_lines, given)) else None, kind="", as_json=as_json
    )


def _split(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Files of records, and everything else."""
    return [path for path in paths if _is_lines(path)], [path for path in paths if not _is_lines(path)]


def _total(records: Sequence[Path], others: int = 0) -> int | None:
    """How many items there will be, for the estimate; unknown where standard input is among them."""
    from producers.files import count_lines

    if any(str(path) == "-" for path in records):
        return None
    return others + sum(count_lines(path) for path in records)


def _is_lines(path: Path) -> bool:
    return str(path) == "-" or (path.suffix.lower() in {".jsonl", ".ndjson"} and path.is_file())


def _lines(path: Path, read_lines: Any) -> Iterator[tuple[str, dict[str, Any]] | Bad]:
    from producers.files import Bad

    if str(path) == "-":
        yield from read_lines(sys.stdin.buffer, "-")
        return
    try:
        stream = path.open("rb")
    except OSError as error:
        yield Bad(str(path), BadInput(f"cannot be read: {error.strerror}", field="path"))
        return
    with stream:
        yield from read_lines(stream, str(path))


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]] | Bad]:
    import json

    from producers.files import Bad

    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        yield Bad(str(path), BadInput(f"cannot be read: {error.strerror}", field="path"))
        return
    except (ValueError, RecursionError):
        yield Bad(str(path), BadInput("the file is not JSON", field="path"))
        return
    for number, one in enumerate(value if isinstance(value, list) else [value], start=1):
        where = f"{path}:{number}" if isinstance(value, list) else str(path)
        if isinstance(one, dict):
            yield where, one
        else:
            yield Bad(where, BadInput("an event is a JSON object", field="event"))

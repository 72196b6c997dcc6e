"""What a command found passes through here: a table for people, JSON for machines."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import orjson
import typer

PIPE_WIDTH = 2000
BLOCKS = "▁▂▃▄▅▆▇█"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    typer.echo(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode())


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str = "Nothing."
) -> None:
    """A listing: these columns as a table, or all fields as a JSON array."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        typer.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    # In a pipe nothing is folded: ids have to be found by grep.
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def print_fields(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """One thing: a line per field, or a JSON object."""
    if as_json:
        print_json(fields)
        return
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        typer.echo(f"{name.replace('_', ' '):<{width}}  {cell(value)}")


def cell(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, dict):
        return orjson.dumps(value, default=str).decode()
    return str(value)


def spark(values: Sequence[float]) -> str:
    """A curve as a line of blocks, at most sixty wide; `values` holds at least one."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    shown = values if len(values) <= 60 else [values[round(i * (len(values) - 1) / 59)] for i in range(60)]
    return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1))] for value in shown)

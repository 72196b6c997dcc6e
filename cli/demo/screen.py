"""What a person sees of the demo leaves here, on standard error, so that `--json` alone is on standard output."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from cli.show import spark


class Screen:
    """Stages, progress, answers, curves and the table at the end."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """A titled stage whose time is kept."""
        self.console.rule(f"[bold]{escape(title)}", align="left")
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - started, 2)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Any]:
        """A bar; yields a function that sets how much is done."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.update(task, completed=done)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(escape(text), highlight=False)

    def answer(self, question: str, reply: dict[str, Any]) -> None:
        """A question with its answer, the citations and who answered."""
        self.console.print(f"[bold cyan]Q[/] {escape(question)}", highlight=False)
        said = reply["answer"] if reply["status"] == "answered" else "(abstained: nothing relevant was found)"
        self.console.print(f"[bold green]A[/] {escape(said or '')}", highlight=False)
        for citation in reply.get("citations") or []:
            where = citation["document_id"] + (f" § {citation['heading']}" if citation.get("heading") else "")
            quote = " ".join(citation["quote"].split())
            self.console.print(f"   [dim]{escape(where)}: “{escape(quote[:100])}”[/]", highlight=False)
        total = (reply.get("timings_ms") or {}).get("total")
        self.console.print(f"   [dim]{escape(str(reply.get('model')))}, {total} ms[/]\n", highlight=False)

    def curve(self, title: str, values: Sequence[float]) -> None:
        """A line of blocks, from the first value to the last."""
        if not values:
            return
        self.console.print(
            f"   {title:<16} {spark(values)}  {values[0]:.3f} → {values[-1]:.3f}", highlight=False
        )

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table."""
        table = Table(title=title, title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(column, justify="left" if column == columns[0] else "right")
        for row in rows:
            table.add_row(*(escape(str(value)) for value in row))
        self.console.print(table)

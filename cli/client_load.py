"""A load of `penstock publish` runs here: bars on standard error, the outcome on standard output, also when it is cut short."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from cli.client_http import open_api
from cli.show import print_json, print_rows
from schemas.errors import PenstockError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from cli.client_upload import Load
    from producers.files import Bad, Item


def publish_all(
    items: Iterable[Item | Bad],
    *,
    total: int | None,
    kind: str,
    as_json: bool,
    collection: str | None = None,
    wait: float = 0.0,
) -> None:
    """Publish, show progress on standard error, and the outcome on standard output: also of what an end cut short."""
    from cli.client_upload import Load

    started, load = time.monotonic(), Load()
    try:
        unfinished, sent = _upload(items, load, total=total, kind=kind, collection=collection, wait=wait)
    except (KeyboardInterrupt, PenstockError):
        if load.accepted or load.duplicates or load.refused:
            _tell(load, 0, time.monotonic() - started, time.monotonic() - started, as_json=as_json, cut=True)
        raise
    _tell(load, unfinished, sent, time.monotonic() - started, as_json=as_json)
    if load.refused:
        raise typer.Exit(1)


def _upload(
    items: Iterable[Item | Bad],
    load: Load,
    *,
    total: int | None,
    kind: str,
    collection: str | None,
    wait: float,
) -> tuple[int, float]:
    """Publish everything with bars; how many are still worked on, and the seconds until all were sent."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cli.client_upload import publish_again, upload, wait_until_done

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started, unfinished = time.monotonic(), 0
    with (
        open_api() as api,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars,
    ):
        upload(api, items, load, progress=_bar(bars, "publishing", total))
        sent = time.monotonic() - started
        if collection is not None:
            publish_again(api, collection, load)
        else:
            load.unchanged = len(load.duplicates)
        if wait and load.accepted:
            progress = _bar(bars, "waiting until searchable", len(load.accepted))
            unfinished = wait_until_done(api, load, kind, wait, progress=progress)
    return unfinished, sent


def _bar(bars: Bars, name: str, total: int | None) -> Any:
    task = bars.add_task(name, total=total, rate="")
    started, done = time.monotonic(), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        bars.update(task, advance=count, rate=f"{done / max(0.001, time.monotonic() - started):.0f}/s")

    return advance


def _tell(
    load: Load, unfinished: int, sent: float, seconds: float, *, as_json: bool, cut: bool = False
) -> None:
    summary = {
        "accepted": len(load.accepted),
        "unchanged": load.unchanged + (len(load.duplicates) if cut else 0),
        "refused": len(load.refused),
        "under_way": unfinished,
        "sent_seconds": round(sent, 3),
        "seconds": round(seconds, 3),
        "interrupted": cut,
    }
    if as_json:
        print_json({**summary, "events": load.accepted, "problems": load.refused})
    else:
        rate = f", sent at {len(load.accepted) / sent:.0f}/s" if len(load.accepted) > 1 and sent else ""
        typer.echo(
            f"{summary['accepted']} published, {summary['unchanged']} unchanged, {summary['refused']} refused"
            f" in {seconds:.1f} s{rate}"
        )
        if cut:
            typer.echo(
                "That was not all. Run the same again: it goes on, and what is published already is skipped."
            )
        if unfinished:
            typer.echo(f"{unfinished} are still being worked on; `penstock status` shows the queues.")
        if load.refused:
            typer.echo()
            print_rows(load.refused, ("what", "field", "why", "fix"), as_json=False)

"""The demo's documents: Penstock's own docs and the language reference that Python carries, real text of real size."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLLECTION = "demo"
REPLACED = "demo/opening-hours"
DELETED = "demo/old-offer"
ROOT = Path(__file__).resolve().parents[2]


def documents() -> list[dict[str, Any]]:
    """The data of `document.added` for every document."""
    return [*_ours(), *_topics(), *_small()]


def _ours() -> Iterator[dict[str, Any]]:
    """README and docs; absent where only the wheel is installed."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if path.is_file():
            yield _document(
                f"penstock/{path.relative_to(ROOT).as_posix()}",
                path.read_text(encoding="utf-8"),
                "text/markdown",
                kind="penstock",
            )


def _topics() -> Iterator[dict[str, Any]]:
    for name, text in sorted(pydoc_data.topics.topics.items()):
        yield _document(f"python/{name}", text, "text/plain", kind="python")


def _small() -> Iterator[dict[str, Any]]:
    """A leaflet, and two documents that the demo will change."""
    leaflet = "The bicycle workshop books brake inspections, mends punctures, rents cargo bikes and fits child seats."
    yield _document("demo/leaflet", leaflet, "text/plain", kind="shop")
    yield _document(REPLACED, opening_hours("nine in the morning"), "text/plain", kind="shop")
    yield _document(
        DELETED,
        "The spring offer gives a discount of twenty percent on every bicycle bell.",
        "text/plain",
        kind="shop",
    )


def opening_hours(opens: str) -> str:
    """The document that is replaced."""
    return f"The bicycle workshop opens at {opens} on weekdays. On Sundays its doors stay closed."


def _document(name: str, content: str, media_type: str, *, kind: str) -> dict[str, Any]:
    return {
        "collection": COLLECTION,
        "document_id": name,
        "content": content,
        "media_type": media_type,
        "title": name.split("/", 1)[1],
        "metadata": {"kind": kind},
    }

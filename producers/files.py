"""Files, folders and JSONL become events here, with ids of what they hold, so that publishing again skips what is done.

What cannot be an event is told as a `Bad` and not sent; everything else goes to whoever publishes, one `Item` each.
"""

from __future__ import annotations

import base64
import json
import mimetypes
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import IO, Any

from producers.naming import digest
from schemas.errors import BadInput, NotFound, PenstockError, TooLarge

SOURCE = "penstock:files"
MAX_DOCUMENT = 50 * 1024 * 1024
MAX_LINE = 16 * 1024 * 1024
TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".rst": "text/x-rst",
    ".txt": "text/plain",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
MAGIC = re.compile(r"[*?\[]")
BINARY = frozenset({".pdf", ".docx", ".xlsx", ".pptx"})


@dataclass(frozen=True, slots=True)
class Item:
    """One event to publish, and what it is called in a report."""

    label: str
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """What could not become an event."""

    label: str
    error: PenstockError


def expand(paths: Iterable[Path]) -> list[Path]:
    """Patterns (``docs/**/*.md``) that the shell has left alone become what they match, in order; the rest stays."""
    found: list[Path] = []
    for path in paths:
        is_pattern = MAGIC.search(str(path)) is not None and not path.exists()
        matches = glob(str(path), recursive=True) if is_pattern else []  # noqa: PTH207 - Path.glob takes no absolute one
        found += [Path(match) for match in sorted(matches)] or [path]
    return found


def count_lines(path: Path) -> int:
    """How many lines of a JSONL file hold something; 0 for one that cannot be read."""
    try:
        with path.open("rb") as stream:
            return sum(1 for line in iter(lambda: stream.readline(MAX_LINE), b"") if line.strip())
    except OSError:
        return 0


def find_files(paths: Iterable[Path]) -> Iterator[Path | Bad]:
    """The files of these files and folders, in order; hidden ones and links out of a folder are left out."""
    for path in paths:
        if path.is_dir():
            root = path.resolve()
            for found in sorted(path.rglob("*")):
                hidden = any(one.startswith(".") for one in found.relative_to(path).parts)
                if not hidden and found.is_file() and found.resolve().is_relative_to(root):
                    yield found
        elif path.is_file():
            yield path
        else:
            missing = "nothing matches" if MAGIC.search(str(path)) else "there is no file"
            yield Bad(str(path), NotFound(f"{missing} {path}", field="path"))


def document_id(path: Path, root: Path) -> str:
    """A file's id: its path below the root, or its name where it lies elsewhere."""
    full, base = path.resolve(), root.resolve()
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else full.name


def document_of(
    path: Path, collection: str, root: Path, metadata: Mapping[str, Any] | None = None
) -> Item | Bad:
    """One file as a `document.added`."""
    name = document_id(path, root)
    try:
        data = {
            "collection": collection,
            "document_id": name,
            **_content(path),
            **({"metadata": dict(metadata)} if metadata else {}),
        }
    except PenstockError as error:
        return Bad(name, error)
    return Item(name, _event("document.added", data, subject=name))


def _content(path: Path) -> dict[str, str]:
    suffix = path.suffix.lower()
    kind = TYPES.get(suffix) or mimetypes.guess_type(path.name)[0]
    try:
        raw = path.read_bytes() if path.stat().st_size <= MAX_DOCUMENT else None
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", field="path") from None
    if raw is None:
        raise TooLarge("is larger than 50 MiB", field="content")
    if suffix in BINARY:
        return {"content": base64.b64encode(raw).decode(), "media_type": TYPES[suffix]}
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"is not UTF-8 text (byte {error.start})", field="content", fix="convert it to UTF-8"
        ) from None
    if "\x00" in text:
        raise BadInput("holds a NUL character: it is no text", field="content")
    return {"content": text, **({"media_type": kind} if kind and kind.startswith("text/") else {})}


def read_lines(stream: IO[bytes], label: str) -> Iterator[tuple[str, dict[str, Any]] | Bad]:
    """The objects of a JSONL stream, each with a name that says where it stands."""
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), start=1):
        where = f"{label}:{number}"
        if not line.strip():
            continue
        if len(line) > MAX_LINE:
            yield Bad(where, TooLarge("the line is longer than 16 MiB", field="line"))
            while not line.endswith(b"\n") and (line := stream.readline(MAX_LINE)):
                pass
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Bad(where, BadInput("the line is not JSON", field="line"))
            continue
        if isinstance(value, dict):
            yield where, value
        else:
            yield Bad(where, BadInput("the line is not a JSON object", field="line"))


def record_of(where: str, value: Mapping[str, Any], collection: str | None) -> Item:
    """One line of a JSONL of documents: the data of `document.added`."""
    given = {} if collection is None else {"collection": collection}
    data = {**given, **value}
    name = str(data.get("document_id", where))
    sequence = data.pop("sequence", None)
    return Item(name, _event("document.added", data, subject=name, sequence=sequence))


def example_of(where: str, value: Mapping[str, Any], dataset: str | None) -> Item:
    """One line of a JSONL of examples: messages, and perhaps a weight."""
    given = {} if dataset is None else {"dataset": dataset}
    return Item(where, _event("example.recorded", {**given, **value}))


def batch_of(label: str, dataset: str, examples: list[dict[str, Any]], more: Mapping[str, Any]) -> Item:
    """A file of examples as one `training.batch_ready`."""
    given = {name: value for name, value in more.items() if value is not None}
    return Item(label, _event("training.batch_ready", {"dataset": dataset, "examples": examples, **given}))


def event_of(where: str, value: Mapping[str, Any]) -> Item:
    """A CloudEvent as somebody wrote it; without an id it gets one of its content."""
    event = {"specversion": "1.0", "source": SOURCE, **value}
    event.setdefault("id", f"file-{digest(dict(value))}")
    return Item(where, event)


def _event(
    kind: str, data: dict[str, Any], *, subject: str | None = None, sequence: Any = None
) -> dict[str, Any]:
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{kind}-{digest(data, sequence)}",
        "source": SOURCE,
        "type": kind,
        "data": data,
    }
    if subject:
        event["subject"] = subject[:1024]
    if sequence is not None:
        event["sequence"] = sequence
    return event

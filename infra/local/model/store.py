"""Files, jobs, events, checkpoints and tuned models pass through here on their way to disk and back.

One SQLite database for the objects, plain files for contents and weights, one lock that keeps a second server
out of the same folder. Used from the event loop only; a write takes well under a millisecond.
"""

from __future__ import annotations

import fcntl
import re
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from schemas.errors import Conflict

Doc = dict[str, Any]
"""A JSON object, as OpenAI's bodies are."""

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def read_queries(path: Path) -> dict[str, str]:
    """The named statements of a file."""
    parts = _NAME.split(path.read_text(encoding="utf-8"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


class Store:
    """Everything that outlives the server, in one folder (0700).

    Raises:
        Conflict: another server uses the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.models = folder / "models"
        for each in (folder, self.files, self.models):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise Conflict("Another local model server uses this folder.", field="--state") from error
        self._sql = read_queries(Path(__file__).with_name("queries.sql"))
        self._db = sqlite3.connect(folder / "objects.sqlite3", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(self._sql["schema"])

    def __enter__(self) -> Self:
        """Usable as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the database and give the folder free."""
        self._db.close()
        self._lock.close()

    def insert(self, kind: str, doc: Doc, *, parent: str = "") -> None:
        """Keep a new object, by its `id`."""
        self._run("insert", kind=kind, id=doc["id"], parent=parent, doc=orjson.dumps(doc).decode())

    def update(self, kind: str, doc: Doc) -> None:
        """Replace an object."""
        self._run("update", kind=kind, id=doc["id"], doc=orjson.dumps(doc).decode())

    def get(self, kind: str, object_id: str) -> Doc | None:
        """One object, if it is there."""
        row = self._run("get", kind=kind, id=object_id).fetchone()
        return None if row is None else orjson.loads(row[0])

    def remove(self, kind: str, object_id: str) -> None:
        """Forget an object."""
        self._run("remove", kind=kind, id=object_id)

    def all(self, kind: str, *, parent: str = "") -> list[Doc]:
        """All objects of a kind, oldest first."""
        return [orjson.loads(doc) for (doc,) in self._run("all", kind=kind, parent=parent)]

    def _run(self, name: str, **values: object) -> sqlite3.Cursor:
        return self._db.execute(self._sql[name], values)


def page(docs: list[Doc], *, after: str | None, limit: int) -> tuple[list[Doc], bool]:
    """The objects behind `after`, at most `limit`, and whether more follow."""
    start = 0
    if after is not None:
        start = next((n for n, doc in enumerate(docs, start=1) if doc["id"] == after), len(docs))
    return docs[start : start + limit], len(docs) > start + limit

"""Uploads pass through here on their way to disk, and go on to training jobs or back to whoever asks for them."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

from infra.local.model.errors import ApiError, invalid, missing, no_such, wrong_value
from infra.local.model.fields import read_limit
from infra.local.model.multipart import Part, read_form
from infra.local.model.reply import Ask, Reply, Usage, json_reply, listing
from infra.local.model.store import Doc, Store, page

PURPOSES = frozenset({"assistants", "batch", "evals", "fine-tune", "user_data", "vision"})
SHORTEST_LIFE, LONGEST_LIFE = 3600, 2_592_000
MOST_LISTED = 10_000


class Files:
    """The endpoints under /v1/files, and what jobs do with files."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, ask: Ask) -> Reply:
        """Take an upload."""
        form = read_form(ask.request.headers.get("content-type", ""), ask.body)
        file = form.get("file")
        if file is None or file.filename is None:
            raise missing("file")
        purpose = _text(form, "purpose")
        if purpose is None:
            raise missing("purpose")
        if purpose not in PURPOSES:
            raise wrong_value("purpose", f"supported values are {', '.join(sorted(PURPOSES))}")
        if not file.data:
            raise invalid("The file is empty.", "file", "empty_file")
        doc = await self.keep(file.filename, purpose, file.data, lives=_lifetime(form))
        return json_reply(doc, usage=Usage(inputs=1))

    async def list_all(self, ask: Ask) -> Reply:
        """A page of files, newest first unless asked otherwise."""
        query = ask.request.query_params
        order = query.get("order", "desc")
        if order not in {"asc", "desc"}:
            raise wrong_value("order", "supported values are asc, desc")
        purpose = query.get("purpose")
        docs = [doc for doc in self._living() if purpose is None or doc["purpose"] == purpose]
        limit = read_limit(query, MOST_LISTED, MOST_LISTED)
        some, more = page(docs if order == "asc" else docs[::-1], after=query.get("after"), limit=limit)
        return listing(some, has_more=more)

    async def retrieve(self, ask: Ask) -> Reply:
        """One file's description."""
        return json_reply(self._found(ask.id))

    async def content(self, ask: Ask) -> Reply:
        """One file's bytes."""
        doc = self._found(ask.id)
        data = await asyncio.to_thread(self._path(doc["id"]).read_bytes)
        return Reply(body=data, media="application/octet-stream")

    async def delete(self, ask: Ask) -> Reply:
        """Forget a file."""
        doc = self._found(ask.id)
        self._forget(doc)
        return json_reply({"id": doc["id"], "object": "file", "deleted": True})

    async def keep(self, filename: str, purpose: str, data: bytes, *, lives: int | None = None) -> Doc:
        """Write a file to disk, then enter it: a crash in between leaves no entry without a content."""
        now = int(time.time())
        doc: Doc = {
            "id": f"file-{secrets.token_hex(12)}",
            "object": "file",
            "bytes": len(data),
            "created_at": now,
            "expires_at": None if lives is None else now + lives,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        await asyncio.to_thread(self._path(doc["id"]).write_bytes, data)
        self._store.insert("file", doc)
        return doc

    def known(self, file_id: str) -> Doc | None:
        """A file that exists and has not expired."""
        doc = self._store.get("file", file_id)
        return None if doc is None or self._expired(doc) else doc

    async def read(self, file_id: str) -> bytes | None:
        """The bytes of a file, or None when it is gone."""
        if self.known(file_id) is None:
            return None
        try:
            return await asyncio.to_thread(self._path(file_id).read_bytes)
        except FileNotFoundError:
            # Deleted between the look-up and the read.
            return None

    def _living(self) -> list[Doc]:
        docs = self._store.all("file")
        for doc in docs:
            if self._expired(doc):
                self._forget(doc)
        return [doc for doc in docs if not self._expired(doc)]

    def _found(self, file_id: str) -> Doc:
        doc = self.known(file_id)
        if doc is None:
            raise no_such("File object", file_id)
        return doc

    def _forget(self, doc: Doc) -> None:
        self._store.remove("file", doc["id"])
        self._path(doc["id"]).unlink(missing_ok=True)

    def _path(self, file_id: str) -> Path:
        # Ids come from this server's own entries, never from a path of the request.
        return self._store.files / file_id

    @staticmethod
    def _expired(doc: Doc) -> bool:
        return doc["expires_at"] is not None and doc["expires_at"] <= time.time()


def _text(form: dict[str, Part], name: str) -> str | None:
    part = form.get(name)
    if part is None:
        return None
    try:
        return part.data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"The field '{name}' is not UTF-8.", param=name) from error


def _lifetime(form: dict[str, Part]) -> int | None:
    """The seconds of `expires_after`, counted from the upload."""
    anchor, seconds = _text(form, "expires_after[anchor]"), _text(form, "expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise wrong_value("expires_after.anchor", "the supported value is created_at")
    if seconds is None or not seconds.isdecimal() or not SHORTEST_LIFE <= int(seconds) <= LONGEST_LIFE:
        raise wrong_value(
            "expires_after.seconds", f"expected an integer from {SHORTEST_LIFE} to {LONGEST_LIFE}"
        )
    return int(seconds)

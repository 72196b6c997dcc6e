"""Model names pass through here and go on as models: the base ones, the tuned ones and their checkpoints."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from datetime import UTC, date, datetime

from infra.local.model.embeddings import EMBEDDING_MODEL
from infra.local.model.errors import ApiError, invalid, no_such_model, wrong_value
from infra.local.model.fields import Fields
from infra.local.model.head import Head
from infra.local.model.reply import Ask, Reply, json_reply
from infra.local.model.store import Doc, Store
from infra.local.model.tuned import Lesson, TunedModel, load_tuned, save_tuned

CHAT_MODEL = "local-chat"
BASE_MODELS = (CHAT_MODEL, EMBEDDING_MODEL)
BASE_CREATED = 1_761_955_200
"""1 November 2025; base models have no date of their own."""
MOST_LOADED = 64


class Catalog:
    """Which models there are, and the endpoints under /v1/models."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loaded: OrderedDict[str, TunedModel] = OrderedDict()
        for name in BASE_MODELS:
            if store.get("model", name) is None:
                store.insert("model", _model(name, BASE_CREATED, "penstock-local"))

    async def list_all(self, _ask: Ask) -> Reply:
        """All models."""
        return json_reply({"object": "list", "data": [_public(doc) for doc in self._store.all("model")]})

    async def retrieve(self, ask: Ask) -> Reply:
        """One model."""
        return json_reply(_public(self._found(ask.id)))

    async def delete(self, ask: Ask) -> Reply:
        """Delete a tuned model; a base model cannot be deleted."""
        doc = self._found(ask.id)
        if doc["id"] in BASE_MODELS:
            raise ApiError(
                403, "You have insufficient permissions for this operation.", code="permission_denied"
            )
        self._store.remove("model", doc["id"])
        self._loaded.pop(doc["id"], None)
        (self._store.models / doc["_file"]).unlink(missing_ok=True)
        return json_reply({"id": doc["id"], "object": "model", "deleted": True})

    async def tuned(self, name: str) -> TunedModel | None:
        """The weights of a chat model; None for the base model.

        Raises:
            ApiError: there is no such chat model, or it has been shut down.
        """
        doc = self._found(name)
        if name == EMBEDDING_MODEL:
            raise ApiError(404, "This is not a chat model.", param="model", code="model_not_found")
        if _gone(doc):
            raise no_such_model(name)
        if name == CHAT_MODEL:
            return None
        if name not in self._loaded:
            self._loaded[name] = await asyncio.to_thread(load_tuned, self._store.models / doc["_file"])
            if len(self._loaded) > MOST_LOADED:
                self._loaded.popitem(last=False)
        return self._loaded[name]

    def trainable(self, name: str) -> None:
        """Refuse a base model that cannot be tuned.

        Raises:
            ApiError: it is unknown, of another kind, or has been shut down.
        """
        doc = self._store.get("model", name)
        if doc is None or name != CHAT_MODEL or _gone(doc):
            raise invalid(f"Model {name} is not available for fine-tuning.", "model", "model_not_available")

    async def add(self, name: str, file: str, head: Head, lesson: Lesson) -> None:
        """Keep a tuned model; adding the same one again changes nothing."""
        if self._store.get("model", name) is None:
            await asyncio.to_thread(save_tuned, self._store.models / file, head, lesson)
            self._store.insert("model", {**_model(name, int(time.time()), "org-local"), "_file": file})

    def set_shutdown(self, name: str, fields: Fields) -> Doc:
        """Announce, or take back, the day from which a model is gone."""
        fields.only(("shutdown_date",))
        day = fields.text("shutdown_date") if fields.has("shutdown_date") else None
        try:
            date.fromisoformat(day or "2000-01-01")
        except ValueError as error:
            raise wrong_value("shutdown_date", "expected a date like 2027-01-14") from error
        doc = {**self._found(name), "shutdown_date": day}
        self._store.update("model", doc)
        return _public(doc)

    def _found(self, name: str) -> Doc:
        doc = self._store.get("model", name)
        if doc is None:
            raise no_such_model(name)
        return doc


def _model(name: str, created: int, owner: str) -> Doc:
    return {"id": name, "object": "model", "created": created, "owned_by": owner, "shutdown_date": None}


def _public(doc: Doc) -> Doc:
    return {name: value for name, value in doc.items() if not name.startswith("_")}


def _gone(doc: Doc) -> bool:
    day = doc["shutdown_date"]
    return day is not None and date.fromisoformat(day) <= datetime.now(UTC).date()

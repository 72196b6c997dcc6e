"""A collection's name passes through here: to its row, made with its embedding space when it is new, and away again.

A dropped collection is out of reach at once; what was in it goes in batches (`clear_dropped`), by `penstock maintain`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import structlog

from infra.database import Connection, queries
from infra.settings import Settings
from schemas.errors import LimitReached, NotFound

CLEAR_BATCH = 5000
"""Rows that are deleted by one statement: far below its time limit, with a vector index too."""
_log = structlog.get_logger("penstock.collections")
_OPENAI = "api.openai.com"


def provider_of(base_url: str | None) -> str:
    """Who serves the models, as embedding spaces are told apart: the host of the model API's address."""
    return (urlsplit(base_url).hostname if base_url else None) or _OPENAI


async def ensure_collection(connection: Connection, tenant_id: str, name: str, settings: Settings) -> int:
    """Find a collection, or make it with the default embedding model.

    Args:
        connection: a transaction that acts for the tenant, best a short one: a new space locks out other new ones.
        tenant_id: whose collection.
        name: a valid name.
        settings: the embedding model of new collections.

    Returns:
        The collection's id.

    Raises:
        LimitReached: the tenant may have no more collections.
    """
    found: int | None = await connection.fetchval(
        queries("collections").ensure,
        tenant_id,
        name,
        provider_of(settings.openai_base_url),
        settings.embed_model,
        settings.embed_dimensions,
    )
    if found is None:
        raise LimitReached("the tenant has as many collections as it may have", field="data.collection")
    return found


async def drop_collection(connection: Connection, tenant_id: str, name: str, *, actor: str) -> None:
    """Drop a collection with all that is in it; events accepted until now do not bring its documents back.

    Args:
        connection: a transaction that acts for the tenant; it waits for those who write to the collection.
        tenant_id: whose collection.
        name: its name, free again when this is committed.
        actor: for the audit trail.

    Raises:
        NotFound: there is no such collection.
    """
    sql = queries("collections")
    collection_id = await connection.fetchval(sql.hold, tenant_id, name)
    number = None if collection_id is None else await connection.fetchval(sql.drop, tenant_id, collection_id)
    if number is None:
        raise NotFound("there is no such collection")
    details = {"collection_id": collection_id, "dropped_no": number}
    await connection.execute(sql.audit, tenant_id, actor, f"collection {name}", details)


async def clear_dropped(connection: Connection) -> int:
    """Delete what dropped collections held, in batches; how many rows that were.

    Args:
        connection: the owner's, outside a transaction.
    """
    total = 0
    for statement in (queries("collections").clear_chunks, queries("collections").clear_documents):
        while deleted := await connection.fetchval(statement, CLEAR_BATCH):
            total += deleted
    if total:
        _log.info("collections.cleared", rows=total)
    return total

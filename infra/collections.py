"""A collection's name passes through here and becomes its row, made with its embedding space when it is new."""

from __future__ import annotations

from urllib.parse import urlsplit

from infra.database import Connection, queries
from infra.settings import Settings
from schemas.errors import LimitReached

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

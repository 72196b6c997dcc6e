"""Stream entries that cannot be events pass through here: into the ledger as dead letters, and back onto their stream.

They are rows of the ledger like all dead letters, so that they outlive Redis, are listed, discarded and erased in one
place. Their type is `stream.refused`; no queue carries it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import orjson
import redis.asyncio

from infra import outbox
from infra.database import Connection, queries
from infra.outbox import Said
from schemas.errors import PenstockError
from schemas.ids import new_event_id
from schemas.values import no_nul
from schemas.work import Publication, Pushable

REFUSED = "stream.refused"
ENCODED = "base64:"
"""Stands before a value that is no text that the ledger could keep."""
MAX_SUBJECTREF = 1024


@dataclass(frozen=True, slots=True)
class Letter:
    """An entry that was refused.

    Attributes:
        entry_id: Redis's id of the entry.
        fields: as they came.
        error: why.
    """

    entry_id: str
    fields: Mapping[bytes, bytes]
    error: PenstockError


async def refuse(
    connection: Connection, tenant_id: str, stream: str, letters: Sequence[Letter]
) -> list[Pushable]:
    """Keep refused entries, each once however often it is read, and say `event.dead` of those that are new.

    Returns:
        What must be pushed to Redis after the commit.
    """
    kept = {new_event_id(): (letter, _data(stream, letter)) for letter in letters}
    rows = await connection.fetch(
        queries("letters").refuse,
        tenant_id,
        list(kept),
        f"redis:{stream}",
        [f"{letter.entry_id}~{_digest(data)}" for letter, data in kept.values()],
        REFUSED,
        [orjson.dumps(data).decode() for _, data in kept.values()],
        [orjson.dumps(_attributes(letter)).decode() for letter, _ in kept.values()],
        [orjson.dumps(letter.error.as_dict()).decode() for letter, _ in kept.values()],
        [hashlib.sha256(orjson.dumps(data)).digest() for _, data in kept.values()],
    )
    said: list[Said] = []
    for row in rows:
        error = kept[row["event_id"]][0].error.as_dict()
        data = {"event_id": str(row["event_id"]), "type": REFUSED, "error": error}
        said.append(Said(tenant_id, Publication("event.dead", data), row["event_id"]))
    return await outbox.write(connection, said)


async def put_back(
    connection: Connection, client: redis.asyncio.Redis, event_ids: Sequence[UUID], *, actor: str
) -> list[Any]:
    """Put refused entries onto their streams once more, as they came; what the ledger kept of them is done.

    An entry may come back twice when this is interrupted; then its own id makes the second one a duplicate.

    Returns:
        The rows (event_id, tenant_id) that came back.
    """
    sql = queries("letters")
    rows = await connection.fetch(sql.refused, list(event_ids), REFUSED)
    for row in rows:
        fields = {_bytes(name): _bytes(value) for name, value in row["data"]["fields"].items()}
        await client.xadd(row["data"]["stream"], cast("dict[Any, Any]", fields))
    return await connection.fetch(sql.came_back, [row["event_id"] for row in rows], actor)


def _data(stream: str, letter: Letter) -> dict[str, Any]:
    fields = {_shown(name): _shown(value) for name, value in letter.fields.items()}
    return {"stream": stream, "entry_id": letter.entry_id, "fields": fields}


def _shown(value: bytes) -> str:
    """Text as it is; anything else, and text that looks encoded, as base64."""
    try:
        text = no_nul(value.decode("utf-8"))
    except ValueError:
        text = ENCODED
    return ENCODED + base64.b64encode(value).decode() if text.startswith(ENCODED) else text


def _bytes(shown: str) -> bytes:
    return base64.b64decode(shown[len(ENCODED) :]) if shown.startswith(ENCODED) else shown.encode()


def _attributes(letter: Letter) -> dict[str, str]:
    """The person whom an entry is about, so that it is erased with the rest of what is about them."""
    about = _shown(letter.fields.get(b"subjectref", b""))
    return {"subjectref": about} if about and len(about) <= MAX_SUBJECTREF else {}


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(data)).hexdigest()[:16]

"""One tenant's documents, for tests: published through the real ledger, looked at as the database's owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.drive import Drive

SPACE = "SELECT DISTINCT space_id FROM collections WHERE tenant_id = $1"


@dataclass(frozen=True, slots=True)
class Shelf:
    """Documents of one tenant in the collection `c`."""

    drive: Drive
    tenant: str

    async def publish(
        self, content: str | None, name: str = "d", sequence: int | None = None, **more: Any
    ) -> UUID:
        """Publish a version of a document, or its deletion when there is no content; nothing runs yet."""
        data: dict[str, Any] = {"collection": "c", "document_id": name}
        kind = "document.deleted"
        if content is not None or "uri" in more:
            kind = "document.added"
            data |= {"content": content} if content is not None else {}
            data |= more
        numbered: Mapping[str, int] = {} if sequence is None else {"sequence": sequence}
        return await self.drive.publish(self.tenant, kind, data, **numbered)

    async def put(
        self, content: str | None, name: str = "d", sequence: int | None = None, **more: Any
    ) -> UUID:
        """Publish a version and run it."""
        event_id = await self.publish(content, name, sequence, **more)
        await self.drive.settle(self.tenant)
        return event_id

    async def row(self, name: str = "d") -> dict[str, Any]:
        """A document's row."""
        [row] = await self.drive.rows(
            "SELECT * FROM documents WHERE tenant_id = $1 AND document_id = $2", self.tenant, name
        )
        return row

    async def texts(self, name: str = "d") -> list[str]:
        """The texts of a document's chunks, in order."""
        return [chunk["text"] for chunk in await self.chunks(name)]

    async def chunks(self, name: str = "d") -> list[dict[str, Any]]:
        """A document's chunks with their vectors, in order; positions have no gaps."""
        rows = await self.drive.rows(
            f"SELECT c.*, v.embedding FROM chunks c LEFT JOIN {await self._vectors()} v USING (tenant_id, chunk_id)"  # noqa: S608 - a number
            " WHERE c.tenant_id = $1 AND c.document_id = $2 ORDER BY c.position",
            self.tenant,
            name,
        )
        assert [row["position"] for row in rows] == list(range(len(rows)))
        return rows

    async def check(self) -> None:
        """Each chunk has its vector, each vector its chunk, and each row says how many chunks there are."""
        vectors = await self._vectors()
        [loose] = await self.drive.rows(
            f"SELECT (SELECT count(*) FROM {vectors} WHERE tenant_id = $1) AS vectors,"  # noqa: S608 - a number
            " (SELECT count(*) FROM chunks WHERE tenant_id = $1) AS chunks,"
            f" (SELECT count(*) FROM chunks JOIN {vectors} USING (tenant_id, chunk_id) WHERE tenant_id = $1) AS pairs,"
            " (SELECT coalesce(sum(chunks), 0) FROM documents WHERE tenant_id = $1) AS said",
            self.tenant,
        )
        assert len(set(loose.values())) == 1, loose

    async def generation(self) -> int:
        """The collection's generation."""
        [row] = await self.drive.rows("SELECT generation FROM collections WHERE tenant_id = $1", self.tenant)
        return int(row["generation"])

    async def said(self, kind: str) -> list[dict[str, Any]]:
        """The data of out events, such as `indexed`."""
        return await self.drive.said(self.tenant, f"document.{kind}")

    async def status(self, event_id: UUID) -> str:
        """An event's status in the ledger."""
        return str((await self.drive.event(event_id))["status"])

    async def _vectors(self) -> str:
        [space] = await self.drive.rows(SPACE, self.tenant)
        return f"vectors_{int(space['space_id'])}"

"""One tenant's questions, for tests: asked through the real ledger and runtime, read as anybody would read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from infra.answers import read_answer
from tests.drive import Drive

HEATING = """\
# Heat pump Aurora 7

The warranty of the Aurora 7 lasts five years from the day of delivery.

Hold the reset button for ten seconds to restart the controller.

The outdoor unit weighs 84 kilograms and needs a free distance of 30 centimetres to every wall.
"""
TRAVEL = """\
# Travel policy

Employees may book first class on train journeys longer than three hours.

Receipts for hotel nights must be handed in within fourteen days after the journey.
"""


@dataclass(frozen=True, slots=True)
class Desk:
    """Questions to the collection `docs` of one tenant."""

    drive: Drive
    tenant: str

    async def put(self, content: str | None, name: str, **more: Any) -> None:
        """Have a document indexed, or deleted when there is no content."""
        data = {"collection": "docs", "document_id": name}
        if content is None:
            await self.drive.publish(self.tenant, "document.deleted", data)
        else:
            await self.drive.publish(
                self.tenant,
                "document.added",
                {**data, "content": content, "media_type": "text/markdown", **more},
            )
        await self.drive.settle(self.tenant)

    async def publish(self, question: str, attributes: dict[str, Any] | None = None, **data: Any) -> UUID:
        """Publish a question; nothing runs yet."""
        asked = {"collections": ["docs"], "question": question, **data}
        return await self.drive.publish(self.tenant, "query.received", asked, **(attributes or {}))

    async def ask(
        self, question: str, attributes: dict[str, Any] | None = None, **data: Any
    ) -> dict[str, Any]:
        """Ask, run the wing, and read the answer."""
        query_id = await self.publish(question, attributes, **data)
        await self.drive.settle(self.tenant)
        return await self.read(query_id)

    async def read(self, query_id: UUID) -> dict[str, Any]:
        """The answer as its owner sees it."""
        return await read_answer(self.drive.resources.database, self.tenant, query_id)

    async def standing(self, query_id: UUID) -> tuple[str, int]:
        """The event's status and its charged attempts."""
        event = await self.drive.event(query_id)
        return event["status"], event["attempts"]

    async def configure(self, **settings: float) -> None:
        """Change the collection's settings."""
        async with self.drive.owner.connection() as connection:
            await connection.execute(
                "UPDATE collections SET settings = settings || $2 WHERE tenant_id = $1", self.tenant, settings
            )

    async def said(self, kind: str) -> list[dict[str, Any]]:
        """The data of the out events `query.<kind>`."""
        return await self.drive.said(self.tenant, f"query.{kind}")

"""What was sent is held against what came back, from the database and from the receiver; the demo succeeds only if all agree."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cli.demo.receiver import Receiver
from infra.database import Connection

SETTLE_WITHIN = 30.0


@dataclass(slots=True)
class Sent:
    """What the demo itself has sent."""

    documents: int = 0
    replaced: int = 0
    deleted: int = 0
    questions: int = 0
    examples: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison."""

    what: str
    expected: int
    found: int

    @property
    def ok(self) -> bool:
        """Whether both sides agree."""
        return self.expected == self.found


@dataclass(frozen=True, slots=True)
class Tally:
    """All comparisons and the counts behind them."""

    lines: list[Line]
    received: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return all(line.ok for line in self.lines)


async def settle(connection: Connection, tenant: str) -> None:
    """Wait until nothing of the tenant is unfinished, deliveries included; what does not end shows in the counts."""
    deadline = asyncio.get_running_loop().time() + SETTLE_WITHIN
    while await connection.fetchval(
        "SELECT count(*) FROM events WHERE tenant_id = $1 AND finished_at IS NULL", tenant
    ):
        if asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(0.1)


async def count(connection: Connection, tenant: str, sent: Sent, receiver: Receiver) -> Tally:
    """Compare."""
    rows = await connection.fetch(
        "SELECT type, status, queue, count(*) AS n FROM events WHERE tenant_id = $1 GROUP BY 1, 2, 3", tenant
    )
    done: Counter[str] = Counter()
    out: Counter[str] = Counter()
    unfinished = dead = 0
    for row in rows:
        if row["status"] == "done":
            done[row["type"]] += row["n"]
        unfinished += row["n"] if row["status"] not in {"done", "dead"} else 0
        dead += row["n"] if row["status"] == "dead" else 0
        if row["queue"] is None:
            out[row["type"]] += row["n"]

    async def one(sql: str) -> int:
        value: Any = await connection.fetchval(sql, tenant)
        return int(value)

    served = await one("SELECT count(*) FROM documents WHERE tenant_id = $1 AND status = 'indexed'")
    purged = await one("SELECT count(*) FROM documents WHERE tenant_id = $1 AND status = 'purged'")
    orphans = await one(
        "SELECT count(*) FROM chunks c LEFT JOIN documents d USING (tenant_id, collection_id, document_id)"
        " WHERE c.tenant_id = $1 AND (d.document_id IS NULL OR d.status <> 'indexed')"
    )
    answers = await one(
        "SELECT count(*) FROM answers WHERE tenant_id = $1 AND status IN ('answered', 'abstained')"
    )
    recorded = await one("SELECT count(*) FROM examples WHERE tenant_id = $1")
    lines = [
        Line("documents sent → indexed events", sent.documents + sent.replaced, out["document.indexed"]),
        Line("deletions sent → purged events", sent.deleted, out["document.purged"]),
        Line("documents served now", sent.documents - sent.deleted, served),
        Line("tombstones", sent.deleted, purged),
        Line("chunks without a served document", 0, orphans),
        Line("questions sent → answers", sent.questions, answers),
        Line("examples sent → recorded", sent.examples, recorded),
        Line("training runs promoted", 1, out["model.promoted"]),
        Line("unfinished events", 0, unfinished),
        Line("dead events", 0, dead),
        Line("results written → webhooks received and verified", sum(out.values()), len(receiver.received)),
        Line("webhooks with a wrong signature", 0, receiver.forged),
    ]
    lines += [Line(f"  webhooks {kind}", out[kind], receiver.by_type[kind]) for kind in sorted(out)]
    return Tally(lines, dict(receiver.by_type))

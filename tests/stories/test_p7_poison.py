"""P7: a poison message cannot block a queue; it ends in the dead letters, and work that shares a batch with it succeeds."""

from infra.local.model.faults_client import Faults
from tests.stories.town import Town, document

POISON = "xyzzy-poison"


async def test_poison_dies_alone_and_can_be_replayed(town: Town, faults: Faults) -> None:
    """One text that the model API refuses, among thirty: it alone is dead, with its reason; replayed later, it is indexed."""
    await town.tenant("acme")
    await faults.add("embeddings", "400", match=POISON)
    await town.workers("ingest")
    await town.publish(
        "acme",
        [
            document(f"d{n}", f"Harmless text {n}." if n != 7 else f"A text with {POISON} inside.")
            for n in range(30)
        ],
    )
    await town.settled("acme")
    rows = await town.rows("SELECT document_id, status FROM documents")
    assert {f"d{n}": "failed" if n == 7 else "indexed" for n in range(30)} == {
        row["document_id"]: row["status"] for row in rows
    }
    [dead] = await town.rows("SELECT event_id, error FROM events WHERE dead_at IS NOT NULL")
    assert dead["error"]["code"]
    assert POISON not in str(dead["error"])
    [failed] = await town.rows("SELECT data FROM events WHERE type = 'document.failed'")
    assert failed["data"]["document_id"] == "d7"

    await faults.clear()
    await town.start("replay", "dead", "replay")
    assert await town.processes.pop("replay").wait() == 0

    async def indexed() -> bool:
        return bool(
            await town.rows("SELECT 1 FROM documents WHERE document_id = 'd7' AND status = 'indexed'")
        )

    await town.until(indexed, "the replayed document is indexed")


async def test_an_unreadable_document_is_dead_with_the_reason(town: Town) -> None:
    """A broken PDF fails with a reason that its owner understands; the worker lives on."""
    await town.tenant("acme")
    await town.workers("ingest")
    broken = document("broken", "bm90IGEgcGRm")
    data = {**broken.data, "media_type": "application/pdf"}
    await town.publish(
        "acme", [type(broken)(broken.id, broken.source, broken.type, data), document("fine", "A fine text.")]
    )
    await town.settled("acme")
    rows = await town.rows("SELECT document_id, status FROM documents")
    assert {"broken": "failed", "fine": "indexed"} == {row["document_id"]: row["status"] for row in rows}
    assert await town.value("SELECT error ->> 'message' FROM events WHERE dead_at IS NOT NULL")

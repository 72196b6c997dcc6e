"""P3: per document the newest version wins, in whatever order events arrive."""

import itertools

from schemas.envelope import Event
from tests.stories.town import Town, document, event


def version(name: str, sequence: int) -> Event:
    """Versions 1, 2 and 4 have content; version 3 deletes."""
    if sequence == 3:
        return event("document.deleted", {"collection": "town", "document_id": name}, sequence=sequence)
    return document(name, f"This is version {sequence} of the town charter.", sequence=sequence)


async def test_every_order_of_versions_ends_in_the_same_state(town: Town) -> None:
    """Add, change, delete and add again, in all 24 orders and side by side: the last version stands, and nothing else."""
    await town.tenant("acme")
    await town.workers("ingest")
    orders = list(itertools.permutations((1, 2, 3, 4)))
    for step in range(4):
        await town.publish("acme", [version(f"d{index}", order[step]) for index, order in enumerate(orders)])
    await town.settled("acme")
    rows = await town.rows("SELECT document_id, status, sequence FROM documents")
    assert {f"d{index}": ("indexed", 4) for index in range(24)} == {
        row["document_id"]: (row["status"], row["sequence"]) for row in rows
    }
    texts = await town.rows("SELECT document_id, text FROM chunks")
    assert 24 == len(texts)
    assert {"This is version 4 of the town charter."} == {row["text"] for row in texts}


async def test_a_reader_never_sees_a_gap(town: Town) -> None:
    """While a document is replaced again and again, each look finds it whole, in one of its versions."""
    await town.tenant("acme")
    await town.workers("ingest")
    await town.publish("acme", [version("d", 1)])
    await town.settled("acme")
    await town.publish(
        "acme",
        [document("d", f"This is version {n} of the town charter.", sequence=n) for n in range(10, 60)],
    )
    seen: list[int] = []

    async def replaced() -> bool:
        seen.append(await town.value("SELECT count(*) FROM chunks WHERE document_id = 'd'"))
        return await town.unfinished("acme") == 0

    await town.until(replaced, "all versions are decided")
    assert {1} == set(seen)
    assert "This is version 59 of the town charter." == await town.value("SELECT text FROM chunks")

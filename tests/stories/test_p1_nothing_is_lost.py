"""P1: an accepted event is never lost."""

from tests.stories.town import Town, document

DOCUMENTS = 200
TEXT = "Penstock story number {0}: the river carries event {0} to the wheel, and the wheel turns {0} times."


async def count_indexed(town: Town) -> int:
    """How many documents are searchable."""
    return int(await town.value("SELECT count(*) FROM documents WHERE status = 'indexed'"))


async def everything_once(town: Town) -> None:
    """Every document is indexed once, said once, and nothing else is there."""
    await town.settled("acme")
    assert DOCUMENTS == await count_indexed(town)
    said = await town.rows(
        "SELECT data ->> 'document_id' AS name, count(*) AS n FROM events WHERE type = 'document.indexed' GROUP BY 1"
    )
    assert {f"d{n}": 1 for n in range(DOCUMENTS)} == {row["name"]: row["n"] for row in said}
    assert await town.value("SELECT count(*) FROM events WHERE status = 'dead'") == 0
    assert (
        await town.value(
            "SELECT count(*) FROM (SELECT document_id, position FROM chunks GROUP BY 1, 2 HAVING count(*) > 1) twice"
        )
        == 0
    )


async def test_a_worker_is_killed_in_the_middle_of_200_documents(town: Town) -> None:
    """Kill -9 of the ingest worker: another one finishes, and every document is indexed once."""
    await town.tenant("acme")
    await town.workers("ingest", concurrency=8)
    await town.publish("acme", [document(f"d{n}", TEXT.format(n)) for n in range(DOCUMENTS)])

    async def in_the_middle() -> bool:
        return await count_indexed(town) >= 5

    await town.until(in_the_middle, "some documents are indexed")
    await town.kill("ingest")
    killed_at = await count_indexed(town)
    await town.workers("ingest", concurrency=8)
    await everything_once(town)
    assert killed_at < DOCUMENTS


async def test_redis_is_emptied_with_work_waiting(town: Town) -> None:
    """FLUSHALL while 200 documents wait: the sweeper fills Redis from the ledger, and each is indexed once."""
    await town.tenant("acme")
    await town.publish("acme", [document(f"d{n}", TEXT.format(n)) for n in range(DOCUMENTS)])
    await town.workers("ingest", concurrency=8)

    async def begun() -> bool:
        return await count_indexed(town) >= 5

    await town.until(begun, "some documents are indexed")
    await town.redis.flushall()
    await everything_once(town)

"""P2: work may run more than once; its effect happens once."""

from tests.stories.town import Town, document

DOCUMENTS = 40


async def test_work_that_is_queued_again_and_again_has_its_effect_once(town: Town) -> None:
    """Two workers, every id pushed over and over while they work: one effect, one result, each."""
    await town.tenant("acme")
    await town.start("one", "worker", "ingest")
    await town.start("two", "worker", "ingest")
    ids = await town.publish(
        "acme", [document(f"d{n}", f"The wheel number {n} turns.") for n in range(DOCUMENTS)]
    )

    async def pushed_again_and_done() -> bool:
        await town.push_again(ids)
        return await town.unfinished("acme") == 0

    await town.until(pushed_again_and_done, "every event has ended")
    said = await town.rows(
        "SELECT caused_by, count(*) AS n FROM events WHERE type = 'document.indexed' GROUP BY 1"
    )
    assert dict.fromkeys(ids, 1) == {row["caused_by"]: row["n"] for row in said}
    assert await town.value("SELECT count(*) FROM chunks") == DOCUMENTS

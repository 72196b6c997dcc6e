"""Examples leave as the exact lines that a trainer gets, with what each goes back to."""

import json
from uuid import uuid4

from infra.training_runs import export_free, export_run
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import lessons


async def test_free_examples_leave_as_a_run_would_have_them(wheel: Wheel) -> None:
    """The same bytes on repetition; and once a run is made of them, the run's file is those bytes."""
    await wheel.dataset(threshold=1000, minimum=10, holdout_minimum=4)
    await wheel.record(lessons(40))
    free = [line async for line in export_free(wheel.gateway, wheel.tenant, "faq", "train")]
    assert free == [line async for line in export_free(wheel.gateway, wheel.tenant, "faq", "train")]
    await wheel.start()
    story = await wheel.finish()
    run = [line async for line in export_run(wheel.gateway, wheel.tenant, story.run.run_id, "train")]
    assert (story.run.train_examples, free) == (len(run), run)
    assert [] == [line async for line in export_free(wheel.gateway, wheel.tenant, "faq", "train")]


async def test_every_line_says_what_it_goes_back_to(wheel: Wheel) -> None:
    """A corrected answer leads to its question, the model that was wrong, and the documents that it had; cited ones are marked."""
    query_id = uuid4()
    passages = [
        {"collection": "canal", "document_id": name, "chunk_id": f"chunk-{name}", "marker": place}
        for place, name in enumerate(("basin", "gate"), 1)
    ]
    async with wheel.drive.owner.connection() as connection:
        await connection.execute(
            "INSERT INTO answers (tenant_id, query_id, status, question, collections, answer, alias, model, passages, citations)"
            " VALUES ($1, $2, 'answered', 'How deep is the basin?', '{canal}', 'Two metres.', 'chat', 'local-chat', $3, $4)",
            wheel.tenant,
            query_id,
            passages,
            [{"chunk_id": "chunk-basin"}],
        )
    await wheel.dataset(threshold=1000, approval="automatic")
    event_id = await wheel.drive.publish(
        wheel.tenant, "feedback.received", {"query_id": str(query_id), "corrected": "Four metres."}
    )
    await wheel.record(lessons(5))
    lines: list[tuple[bytes, bytes]] = []
    for split in ("train", "validation", "holdout"):
        texts = [line async for line in export_free(wheel.gateway, wheel.tenant, "faq", split)]
        back = [line async for line in export_free(wheel.gateway, wheel.tenant, "faq", split, lineage=True)]
        lines += zip(texts, back, strict=True)
    assert 6 == len(lines)
    told = [(json.loads(text)["messages"], json.loads(back)) for text, back in lines]
    [(messages, corrected)] = [one for one in told if one[1]["query_id"] == str(query_id)]
    assert ["How deep is the basin?", "Four metres."] == [one["content"] for one in messages]
    assert (str(event_id), "local-chat", True) == (
        corrected["event_id"],
        corrected["lineage"]["model"],
        corrected["lineage"]["corrected"],
    )
    documents = {one["document_id"]: one["cited"] for one in corrected["lineage"]["documents"]}
    assert {"basin": True, "gate": False} == documents
    assert all(back["event_id"] and back["source"] for _, back in told)

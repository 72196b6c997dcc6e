"""What models answer in an evaluation, with what context, and who judges."""

from typing import Any

import pytest

from infra.settings import Settings
from tests.workers.train.conftest import Wheel
from tests.workers.train.lessons import lessons


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A judge is set."""
    return settings.model_copy(update={"judge_model": "local-chat"})


SMALL: dict[str, Any] = {"threshold": 24, "minimum": 10, "holdout_minimum": 4}


async def test_every_model_answers_with_the_same_retrieved_context(wheel: Wheel) -> None:
    """A dataset that names a collection has each held-out question searched once, and all models get what was found."""
    await wheel.drive.use("ingest")
    text = "# The lower basin\n\nThe lower basin is four metres deep at mean water."
    data = {"collection": "canal", "document_id": "basin", "content": text, "media_type": "text/markdown"}
    await wheel.drive.publish(wheel.tenant, "document.added", data)
    await wheel.drive.settle(wheel.tenant)
    await wheel.dataset(**SMALL, collections=["canal"])
    await wheel.record(lessons(40))
    await wheel.until("evaluating")
    await wheel.faults.reset_calls()
    story = await wheel.finish()
    assert "promoted" == story.run.status
    contexts = await wheel.drive.rows(
        "SELECT passages FROM evaluation_contexts WHERE tenant_id = $1 AND run_id = $2",
        wheel.tenant,
        story.run.run_id,
    )
    assert story.run.holdout_examples == len(contexts)
    assert {"basin"} == {one["document_id"] for row in contexts for one in row["passages"]}
    answers = await wheel.drive.rows(
        "SELECT answer FROM evaluations WHERE tenant_id = $1 AND model = 'local-chat' AND answer LIKE '%[1]%'",
        wheel.tenant,
    )
    assert answers  # the base model answered from the passage, and cited it
    base, tuned = story.run.evaluation["table"]  # type: ignore[index]
    assert 1.0 == base["citation_validity"]
    assert tuned["corrected_f1"] > base["corrected_f1"]


async def test_a_judge_compares_in_both_orders_and_is_paid_once(wheel: Wheel) -> None:
    """Each answer of the tuned model that differs from the base model's is judged twice; the table shows what was said."""
    await wheel.dataset(**SMALL)
    await wheel.record(lessons(40))
    await wheel.until("evaluating")
    await wheel.faults.reset_calls()
    story = await wheel.finish()
    base, tuned = story.run.evaluation["table"]  # type: ignore[index]
    assert "promoted" == story.run.status
    assert (0.5, True) == (base["judge"], tuned["judge"] > 0.8)
    held = story.run.holdout_examples
    assert held is not None
    # Two models' answers, at most two judgements of each, and one call to warm the model up.
    assert await wheel.faults.requests("chat") <= 4 * held + 1
    kept = await wheel.drive.rows(
        "SELECT count(*) AS n FROM evaluations WHERE tenant_id = $1 AND grades ? 'judge'", wheel.tenant
    )
    assert [{"n": 2 * held}] == kept

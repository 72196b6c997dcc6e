"""P9: a 429 or an outage of the model API burns no attempt and loses no event."""

import pytest

from infra.local.model.faults_client import Faults
from tests.stories.town import Town, document

DOCUMENTS = 20


@pytest.mark.parametrize(("kind", "options"), [("429", {"retry_after": 1}), ("503", {}), ("drop", {})])
async def test_the_model_api_is_away_for_a_while(
    town: Town, faults: Faults, kind: str, options: dict[str, float]
) -> None:
    """While the API refuses, fails or hangs up, work waits; afterwards all is indexed, and no attempt was charged for it."""
    await town.tenant("acme")
    await faults.add("embeddings", kind, **options)
    await town.workers("ingest")
    await town.publish("acme", [document(f"d{n}", f"Text number {n} waits.") for n in range(DOCUMENTS)])

    async def refused() -> bool:
        return await faults.requests("embeddings") >= 2

    await town.until(refused, "the API has refused twice")
    await faults.clear()
    await town.settled("acme")
    rows = await town.rows("SELECT status, attempts FROM events WHERE type = 'document.added'")
    assert [("done", 1)] * DOCUMENTS == [(row["status"], row["attempts"]) for row in rows]

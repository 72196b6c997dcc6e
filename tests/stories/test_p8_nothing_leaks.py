"""P8: no secret and no text of a document, question or example in a log line, a metric or an error shown to somebody else."""

import re

import httpx2

from infra.local.model.faults_client import Faults
from tests.stories.town import Town, document, event

CANARY = "canary7f3a9"


async def test_a_canary_is_found_in_no_log_and_no_metric(town: Town, faults: Faults) -> None:
    """A word sent through success and failure of every wing, at the most talkative log level, is in no log and no metric."""
    await town.gateway()
    client = await town.tenant("acme")
    await town.start("all", "worker", "all")
    await town.receiver(client, "*")
    await faults.add("embeddings", "400", match=f"{CANARY} poison")
    await faults.add("embeddings", "500", match=f"{CANARY} once", times=1)
    await town.publish(
        "acme",
        [
            document("good", f"The {CANARY} sings in the morning."),
            document("poison", f"The {CANARY} poison is refused."),
            document("once", f"The {CANARY} once fails once."),
            event("document.added", {"collection": "town", "document_id": "pdf", "content": CANARY, "media_type": "application/pdf"}),
            event("example.recorded", {"dataset": "d", "messages": [{"role": "user", "content": CANARY}, {"role": "assistant", "content": CANARY}]}),
            event("example.recorded", {"dataset": "d", "messages": [{"role": "user", "content": CANARY}, {"role": "user", "content": CANARY}]}),
        ],
    )  # fmt: skip
    await town.settled("acme")
    asked = await client.post(
        "/v1/collections/town/queries",
        json={"question": f"When does the {CANARY} sing?"},
        headers={"prefer": "wait=30"},
    )
    assert CANARY in asked.text
    bad = [
        await client.post(
            "/v1/events",
            content=f'{{"specversion": "1.0", "{CANARY}'.encode(),
            headers={"content-type": "application/cloudevents+json"},
        ),
        await client.post(
            "/v1/collections/town/queries", json={"question": CANARY, "filter": {"$bad": CANARY}}
        ),
        await client.put("/v1/collections/town/documents/x", json={"content": f"{CANARY}\x00"}),
    ]
    assert [True] * len(bad) == [400 <= reply.status_code < 500 for reply in bad]
    assert [] == [reply.text for reply in bad if CANARY in reply.text]
    logs = {path.name: path.read_text(errors="replace") for path in town.logs.glob("*.log")}
    assert [] == [name for name, text in logs.items() if CANARY in text]
    key = client.headers["authorization"].removeprefix("Bearer ")
    assert [] == [name for name, text in logs.items() if key in text or "whsec_" in text]
    async with httpx2.AsyncClient(trust_env=False) as http:
        for text in logs.values():
            for port in re.findall(r'"port":(\d+),"event":"ops.listening"', text):
                metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
                assert CANARY not in metrics
                assert "acme" not in metrics

"""P1 over a stream: what is in the stream reaches the ledger once, whoever is killed, and none of its text reaches a log."""

import json
import signal
from typing import Any

from tests.stories.town import Town

CANARY = "canary5b1d7"
COUNT = 800


def fields(number: int) -> dict[Any, Any]:
    """A stream entry; every hundredth lacks an answer, and one has an attribute that is too long."""
    messages = [{"role": "user", "content": CANARY}, {"role": "assistant", "content": f"{CANARY} {number}"}]
    data = {"dataset": "d", "messages": messages[: 1 if number % 100 == 0 else 2]}
    given = {"type": "example.recorded", "source": "s", "id": str(number), "data": json.dumps(data)}
    return {**given, "about": CANARY * 200} if number == 7 else given


async def test_a_killed_bridge_loses_and_doubles_nothing(town: Town) -> None:
    """Kill -9 in the middle of a load: another bridge takes over what was pending; SIGTERM then ends that one well."""
    await town.tenant("acme")
    async with town.redis.pipeline(transaction=False) as pipe:
        for number in range(COUNT):
            pipe.xadd("acme:in", fields(number))
        await pipe.execute()
    command = ("bridge", "--stream", "acme:in", "--tenant", "acme", "--batch", "20")
    await town.start("first", *command)

    async def some() -> bool:
        return int(await town.value("SELECT count(*) FROM events WHERE status = 'accepted'")) >= 100

    await town.until(some, "the first bridge works")
    await town.kill("first")
    await town.start("second", *command)

    async def nothing_left() -> bool:
        return int(await town.redis.xlen("acme:in")) == 0

    await town.until(nothing_left, "the stream is empty")
    rows = await town.rows(
        "SELECT id, status FROM events WHERE type IN ('example.recorded', 'stream.refused')"
    )
    refused = [row for row in rows if row["status"] == "dead"]
    assert len(refused) == COUNT // 100 + 1
    assert sorted(int(row["id"]) for row in rows if row["status"] == "accepted") == [
        number for number in range(COUNT) if number % 100 and number != 7
    ]
    process = town.processes["second"]
    process.send_signal(signal.SIGTERM)
    assert 0 == await process.wait()
    logs = {path.name: path.read_text(errors="replace") for path in town.logs.glob("*.log")}
    assert [] == [name for name, text in logs.items() if CANARY in text]
    assert "bridge.refused" in logs["first.log"] + logs["second.log"]

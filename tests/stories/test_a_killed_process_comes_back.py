"""P7 and P1 together: several processes under one supervisor, and one that is killed comes back."""

import json
import os
import signal

import httpx2
import psutil

from tests.stories.town import Town, document

DOCUMENTS = 60


def port_of(town: Town, name: str) -> int:
    """The ops port that a process named in its log; the first one is the supervisor's."""
    lines = (town.logs / f"{name}.log").read_text().splitlines()
    return int(next(json.loads(line)["port"] for line in lines if '"ops.listening"' in line))


async def test_a_killed_process_of_a_pool_is_replaced(town: Town) -> None:
    """Two processes under one supervisor; one is killed -9 while it works: it is started again, and nothing is lost."""
    await town.tenant("acme")
    await town.start("ingest", "worker", "ingest", "--processes", "2", "--concurrency", "4")
    await town.publish(
        "acme", [document(f"d{n}", f"A text for process number {n}.") for n in range(DOCUMENTS)]
    )

    async def begun() -> bool:
        return int(await town.value("SELECT count(*) FROM documents WHERE status = 'indexed'")) > 0

    await town.until(begun, "some documents are indexed")
    supervisor = psutil.Process(town.processes["ingest"].pid)
    before = {child.pid for child in supervisor.children() if "worker" in child.cmdline()}
    assert 2 == len(before)
    os.kill(min(before), signal.SIGKILL)
    await town.settled("acme")
    assert DOCUMENTS == await town.value("SELECT count(*) FROM documents WHERE status = 'indexed'")

    async def replaced() -> bool:
        return (
            len({child.pid for child in supervisor.children() if "worker" in child.cmdline()} - before) == 1
        )

    await town.until(replaced, "another process has taken its place")

    async with httpx2.AsyncClient(trust_env=False) as http:

        async def both_ready() -> bool:
            found = (await http.get(f"http://127.0.0.1:{port_of(town, 'ingest')}/readyz", timeout=30)).json()
            well = {name for name, text in found["checks"].items() if text == "ok"}
            return {f"process {number}: pool ingest" for number in (0, 1)} <= well

        await town.until(both_ready, "the supervisor's one ops port tells of both processes")

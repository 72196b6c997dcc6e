"""The compatibility face: stock arq runs the same handlers, and an effect still happens once."""

import sys

from tests.stories.town import Town, document

DOCUMENTS = 5


async def test_stock_arq_runs_the_ingest_pool(town: Town) -> None:
    """`arq workers.main.Ingest --burst` indexes what waits; running it again with the same ids changes nothing."""
    await town.tenant("acme")
    ids = await town.publish("acme", [document(f"d{n}", f"Stock text {n}.") for n in range(DOCUMENTS)])
    for turn in range(2):
        with (town.logs / f"arq{turn}.log").open("ab") as log:
            await town.run_to_end(
                f"arq{turn}", log, sys.executable, "-m", "arq", "workers.main.Ingest", "--burst"
            )
        assert await town.unfinished("acme") == 0
        said = await town.rows(
            "SELECT caused_by, count(*) AS n FROM events WHERE type = 'document.indexed' GROUP BY 1"
        )
        assert dict.fromkeys(ids, 1) == {row["caused_by"]: row["n"] for row in said}
        await town.push_again(ids)

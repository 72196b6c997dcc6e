from __future__ import annotations

import asyncio
from typing import Any

from tests.cli.commands import Penstock
from tests.drive import Drive
from tests.workers.ingest.shelf import Shelf

MODEL = "local-embed-256"


async def test_a_collection_is_moved_counted_and_cleaned_up_after(
    penstock: Penstock, drive: Drive, tenant: str
) -> None:
    """A dry run says what there is to do; the move is counted on the documents; what it left is deleted when asked."""
    await drive.use("ingest")
    shelf = Shelf(drive, tenant)
    await shelf.publish("The gate opens at noon.", "a")
    await shelf.publish("A river runs to the sea, and comes back as rain.", "b")
    await drive.settle(tenant)
    await drive.resources.budget.flush()  # calls are booked together, half a second later

    async def ask(*words: str) -> Any:
        return await asyncio.to_thread(penstock.json, *words)

    async def spent() -> dict[str, int]:
        rows = await ask("usage", "--by", "document", "--tenant", tenant)
        assert {"c"} == {row["collection"] for row in rows}
        return {row["document_id"]: row["embedded_tokens"] for row in rows}

    once = await spent()
    assert once["b"] > once["a"] > 0
    moving = ("collections", "reembed", "c", "--tenant", tenant, "--model", MODEL, "--dimensions", "96")
    planned = await ask(*moving, "--dry-run")
    assert (2, "dry run") == (planned["missing"], planned["state"])
    moved = await ask(*moving)
    assert (2, "switched") == (moved["made"], moved["state"])
    assert "nothing to do" == (await ask(*moving))["state"]
    twice = await spent()
    assert all(once[name] < twice[name] <= 2 * once[name] + 1 for name in ("a", "b"))
    [collection] = await ask("usage", "--by", "collection", "--tenant", tenant)
    assert (2, sum(twice.values())) == (collection["documents"], collection["embedded_tokens"])

    spaces = await ask("spaces", "list")
    [old] = [one["space_id"] for one in spaces if (one["model"], one["dimensions"]) == (MODEL, 256)]
    left = (await ask("spaces", "clean", str(old), "--dry-run"))["vectors"]
    assert left >= 2
    assert left == (await ask("spaces", "clean", str(old)))["vectors"]
    assert 0 == (await ask("spaces", "clean", str(old), "--dry-run"))["vectors"]
    await shelf.check()


async def test_a_collection_that_is_not_there_cannot_be_moved(penstock: Penstock, tenant: str) -> None:
    """The command names what it looked for, and ends with 1."""
    words = ("collections", "reembed", "nowhere", "--tenant", tenant, "--model", MODEL)
    done = await asyncio.to_thread(penstock.run, *words, expect=1)
    assert "no collection 'nowhere'" in done.stderr

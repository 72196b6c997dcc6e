from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.local.model.faults_client import Faults
from schemas.errors import SequenceMode
from tests.conftest import NewTenant
from tests.drive import Drive
from tests.workers.ingest.shelf import Shelf
from workers.ingest.version import Known, Standing, standing

KNOWN = Known(
    revision=3,
    sequence=9,
    settled=5,
    served=5,
    explicit=True,
    content_sha256=None,
    recipe_sha256=None,
    title=None,
    metadata={},
    uri=None,
    chunks=0,
    tokens=0,
    event_id=None,
)


@pytest.mark.parametrize(
    ("known", "sequence", "expected"),
    [
        (None, 0, Standing.COUNTS),
        (KNOWN, 4, Standing.SUPERSEDED),
        (KNOWN, 5, Standing.REPEATED),
        (KNOWN, 6, Standing.COUNTS),  # between what is served and a newer one that failed
        (KNOWN, 9, Standing.COUNTS),  # the failed one, tried again
        (KNOWN, 10, Standing.COUNTS),
        (replace(KNOWN, served=None), 4, Standing.SUPERSEDED),  # older than a tombstone
        (replace(KNOWN, settled=-1, served=None), 0, Standing.COUNTS),  # nothing but failures so far
    ],
)
def test_the_newest_version_wins(known: Known | None, sequence: int, expected: Standing) -> None:
    """A version counts when it is newer than what decided the content; a failure decides nothing."""
    assert standing(known, sequence, explicit=True) is expected


@pytest.mark.parametrize("explicit", [True, False])
def test_a_document_keeps_the_mode_of_its_first_version(explicit: bool) -> None:
    """The caller's numbers and the ledger's cannot be compared, so the other ones are refused."""
    with pytest.raises(SequenceMode):
        standing(replace(KNOWN, explicit=explicit), 99, explicit=not explicit)


Version = tuple[int, str]
"""Number, and what it is: `add`, `delete` or `fail`."""


def outcome(versions: Sequence[Version]) -> tuple[str, int, int | None]:
    """Status, sequence and served sequence after all versions, whatever their order."""
    newest, kind = max(versions)
    number, content = max(((n, kind) for n, kind in versions if kind != "fail"), default=(-1, "none"))
    status = {"add": "indexed", "delete": "purged", "fail": "failed"}[kind]
    return status, newest, number if content == "add" else None


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Version], list[int]]:
    """Versions in the order in which they arrive, and how many of them arrive together."""
    kinds = draw(st.lists(st.sampled_from(["add", "add", "delete", "fail"]), min_size=1, max_size=6))
    versions = draw(st.permutations(list(enumerate(kinds))))
    return versions, draw(st.lists(st.integers(1, 3), min_size=len(kinds), max_size=len(kinds)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
async def test_every_order_ends_in_the_same_state(
    drive: Drive, new_tenant: NewTenant, history: tuple[list[Version], list[int]]
) -> None:
    """Versions, deletes and failures in any order, alone or at the same time, end as the newest ones say."""
    if not drive.handlers:
        await drive.use("ingest")
    shelf = Shelf(drive, await new_tenant())
    waiting, groups = list(history[0]), list(history[1])
    while waiting:
        together, waiting = waiting[: groups[0]], waiting[groups.pop(0) :]
        for number, kind in together:
            if kind == "delete":
                await shelf.publish(None, sequence=number)
            else:
                media_type = "text/plain" if kind == "add" else "application/json"
                await shelf.publish(f"version {number}", sequence=number, media_type=media_type)
        await drive.settle(shelf.tenant)
    row = await shelf.row()
    status, sequence, served = outcome(history[0])
    assert (status, sequence, served) == (row["status"], row["sequence"], row["served_sequence"])
    assert await shelf.texts() == ([f"version {served}"] if served is not None else [])
    await shelf.check()
    said = [len(await shelf.said(kind)) for kind in ("indexed", "superseded", "purged", "failed")]
    assert sum(said) == len(history[0])


async def test_without_numbers_the_order_of_acceptance_decides(shelf: Shelf) -> None:
    """Two versions that were accepted one after the other and run together: the later one is served."""
    await shelf.publish("first")
    await shelf.publish("second")
    await shelf.drive.settle(shelf.tenant)
    assert await shelf.texts() == ["second"]
    assert len(await shelf.said("indexed")) + len(await shelf.said("superseded")) == 2


async def test_the_same_number_with_other_content_is_superseded(shelf: Shelf) -> None:
    """The first one keeps its place; the same content again is simply indexed again."""
    await shelf.put("one", sequence=1)
    await shelf.put("two", sequence=1)
    await shelf.put("one", sequence=1)
    assert await shelf.texts() == ["one"]
    assert [said["by_sequence"] for said in await shelf.said("superseded")] == [1]
    assert len(await shelf.said("indexed")) == 2


async def test_a_version_of_the_other_mode_fails_and_changes_nothing(shelf: Shelf) -> None:
    """A document with numbers of its own refuses a version without one."""
    await shelf.put("one", sequence=1)
    before = await shelf.row()
    event_id = await shelf.put("two")
    assert await shelf.status(event_id) == "dead"
    assert [said["error"]["code"] for said in await shelf.said("failed")] == ["sequence_mode"]
    assert await shelf.row() == before


async def test_a_new_document_after_a_delete_needs_a_higher_number(shelf: Shelf) -> None:
    """What was published before the delete stays dead; what comes after it lives."""
    await shelf.put("one", sequence=1)
    await shelf.put(None, sequence=5)
    await shelf.put("late", sequence=4)
    assert await shelf.texts() == []
    await shelf.put("again", sequence=6)
    assert await shelf.texts() == ["again"]
    assert [said["by_sequence"] for said in await shelf.said("superseded")] == [5]


async def test_a_failed_version_leaves_the_older_one_and_can_be_replayed(shelf: Shelf) -> None:
    """The reason is shown, the old text is served; the same number succeeds once the cause is gone."""
    await shelf.put("served", sequence=1)
    await shelf.put("not json", sequence=2, media_type="application/json")
    row = await shelf.row()
    assert ("failed", 2, 1, "unreadable") == (
        row["status"], row["sequence"], row["served_sequence"], row["error"]["code"],
    )  # fmt: skip
    assert await shelf.texts() == ["served"]
    await shelf.put('{"now": "json"}', sequence=2, media_type="application/json")
    row = await shelf.row()
    assert ("indexed", 2, 2, None) == (row["status"], row["sequence"], row["served_sequence"], row["error"])
    assert await shelf.texts() == ["now: json"]


async def test_a_document_deleted_while_it_is_embedded_leaves_no_orphan(shelf: Shelf, faults: Faults) -> None:
    """Pgai's race: the delete commits while the model API is slow; nothing of the older version is written."""
    await faults.latency("embeddings", seconds=1.0)
    await shelf.publish("slow to embed", sequence=1)
    adding = asyncio.create_task(shelf.drive.settle(shelf.tenant))

    async def embedding() -> bool:
        return await faults.requests("embeddings") > 0

    async with asyncio.timeout(20):
        while not await embedding():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.02)
    await shelf.publish(None, sequence=2)
    await shelf.drive.settle(shelf.tenant)
    await adding
    row = await shelf.row()
    assert ("purged", 2, None, 0) == (row["status"], row["sequence"], row["served_sequence"], row["chunks"])
    assert await shelf.drive.rows("SELECT * FROM chunks WHERE tenant_id = $1", shelf.tenant) == []
    await shelf.check()
    assert [said["by_sequence"] for said in await shelf.said("superseded")] == [2]


async def test_a_reader_sees_the_old_version_or_the_new_one(shelf: Shelf) -> None:
    """While a document is replaced again and again, no read finds it absent, mixed or cut."""
    versions = ["\n\n".join(f"{word} paragraph {n}. " * 30 for n in range(8)) for word in ("old", "new")]
    await shelf.put(versions[0])
    whole = set()
    for version in versions:
        await shelf.put(version)
        whole.add(tuple(await shelf.texts()))
    seen: set[tuple[str, ...]] = set()
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            seen.add(tuple(await shelf.texts()))

    reading = asyncio.create_task(read())
    for turn in range(10):
        await shelf.put(versions[turn % 2])
    done.set()
    await reading
    assert seen <= whole
    assert len(seen) == 2

"""P6: a tenant never sees another tenant's data, nor whether it exists."""

from tests.stories.town import Town, document

SECRET = "the vault of the north bank opens at midnight"


async def test_another_tenants_things_and_no_things_answer_alike(town: Town) -> None:
    """Documents, events, searches and answers of one tenant do not exist for another."""
    await town.gateway()
    north, south = await town.tenant("north"), await town.tenant("south")
    await town.start("all", "worker", "all")
    [event_id] = await town.publish("north", [document("vault", f"A note: {SECRET}.", collection="notes")])
    await town.publish("south", [document("bread", "The bakery opens at six.", collection="notes")])
    await town.settled("north")
    await town.settled("south")

    for path in (f"/v1/events/{event_id}", "/v1/collections/notes/documents/vault"):
        there, not_there = await south.get(path), await south.get(path[:-4] + "0000")
        assert (404, 404) == (there.status_code, not_there.status_code)
        assert set(there.json()) == set(not_there.json())
        assert (await north.get(path)).status_code == 200
    found = (
        await south.post("/v1/collections/notes/search", json={"question": "When does the vault open?"})
    ).json()
    assert {"bread"} >= {passage["document_id"] for passage in found["results"]}
    answer = await south.post(
        "/v1/collections/notes/queries",
        json={"question": "When does the vault of the north bank open?"},
        headers={"prefer": "wait=30"},
    )
    assert SECRET not in answer.text
    mine = await north.post(
        "/v1/collections/notes/queries",
        json={"question": "When does the vault of the north bank open?"},
        headers={"prefer": "wait=30"},
    )
    assert "midnight" in mine.json()["answer"]

"""P5: a result reaches each subscribed webhook at least once, signed, or ends in the dead letters with its reason."""

from tests.stories.town import Town, document

DOCUMENTS = 10


async def test_every_result_arrives_signed(town: Town) -> None:
    """Ten documents, ten messages, each verified by somebody else's library; the subscription decides which."""
    await town.gateway()
    client = await town.tenant("acme")
    await town.start("all", "worker", "all")
    receiver = await town.receiver(client, "document.indexed")
    await town.publish(
        "acme", [document(f"d{n}", f"Message {n} for the receiver.") for n in range(DOCUMENTS)]
    )
    await town.settled("acme")
    assert {"document.indexed": DOCUMENTS} == dict(receiver.by_type)
    assert receiver.forged == 0
    ids = {
        f"msg_{row['event_id'].hex}"
        for row in await town.rows("SELECT event_id FROM events WHERE type = 'document.indexed'")
    }
    assert ids == set(receiver.received)


async def test_a_refused_message_waits_for_its_next_attempt(town: Town) -> None:
    """The receiver answers 404: the attempt is recorded, and the message waits in the ledger for its next one."""
    await town.gateway()
    client = await town.tenant("acme")
    await town.start("all", "worker", "all")
    made = await client.post(
        "/v1/webhooks", json={"url": f"{town.url}/nowhere", "types": ["document.indexed"]}
    )
    assert made.status_code == 201, made.text
    await town.publish("acme", [document("d", "A message for nobody.")])

    async def refused() -> bool:
        return bool(await town.rows("SELECT 1 FROM delivery_attempts"))

    await town.until(refused, "the delivery was attempted")
    [delivery] = await town.rows("SELECT status, attempts FROM deliveries")
    assert ("retrying", 1) == (delivery["status"], delivery["attempts"])
    [attempt] = await town.rows("SELECT status_code FROM delivery_attempts")
    assert attempt["status_code"] == 404
    [waiting] = await town.rows("SELECT due_at > now() AS later FROM events WHERE type = 'delivery.due'")
    assert waiting["later"]

"""What is erased is found in no table and no Redis key afterwards; ids, hashes and states stay."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2

from infra import letters
from infra.database import Database
from infra.erasure import Target, erase
from infra.letters import Letter
from infra.local.model.faults_client import Faults
from schemas.errors import BadInput
from tests.stories.remains import keys_with, tables_with
from tests.stories.town import Town, document, event

MARK = "zqmarker8d4"
PERSON = "person-7"


async def parrot(town: Town) -> str:
    """A webhook receiver that answers with what it was sent, so that attempts remember it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = [line.split(b":", 1) for line in head.lower().split(b"\r\n") if b":" in line]
        body = await reader.readexactly(int(dict(lines)[b"content-length"]))
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    town.held.callback(server.close)
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/parrot"


def talk(text: str) -> dict[str, Any]:
    """The data of an example."""
    messages = [{"role": "user", "content": f"What is {text}?"}, {"role": "assistant", "content": MARK}]
    return {"dataset": "d", "messages": messages}


async def plant(town: Town, client: httpx2.AsyncClient, **about: Any) -> str:
    """Put the marker wherever a tenant's text can stand. Returns a question that used the document."""
    await town.publish(
        "acme",
        [
            event(
                "document.added",
                {"collection": "town", "document_id": "d", "content": f"The {MARK} sings in the morning.", "title": MARK, "metadata": {"who": MARK}},
                **about,
            ),
            document("poison", f"{MARK} poison", **about),
            event("example.recorded", talk("the first"), **about),
            event("example.recorded", talk("the second"), **about),
        ],
    )  # fmt: skip
    await town.settled("acme")
    asked = await client.post(
        "/v1/collections/town/queries",
        json={"question": "When does it sing in the morning?"},
        headers={"prefer": "wait=30"},
    )
    assert MARK in asked.text
    question = {"collections": ["town"], "question": f"When does the {MARK} sing?", "stream": True}
    [own] = await town.publish("acme", [event("query.received", question, **about)])
    await town.settled("acme")
    for query_id in (asked.json()["id"], str(own)):
        feedback = {"query_id": query_id, "rating": 1, "corrected": f"Says {MARK}."}
        await town.publish("acme", [event("feedback.received", feedback)])
    await town.settled("acme")
    async with (
        Database.open(town.servers.database_url, role="penstock_gateway", size=1) as gateway,
        gateway.transaction("acme") as connection,
    ):
        fields = {key.encode(): str(value).encode() for key, value in about.items()}
        refused = Letter("1-0", {b"data": MARK.encode(), **fields}, BadInput("no", field="data"))
        await letters.refuse(connection, "acme", "acme:in", [refused])
    return str(asked.json()["id"])


async def train_on(town: Town) -> None:
    """A finished run with a model, made of every example, as the train wing leaves it."""
    run, model = uuid4(), "ft:rivers"
    async with town.owner.connection() as connection:
        await connection.execute(
            "INSERT INTO training_runs (tenant_id, run_id, dataset, alias, base_model, reason, margin, status, ended_at)"
            " VALUES ('acme', $1, 'd', 'chat', 'b', 'threshold', 0.01, 'promoted', now())",
            run,
        )
        await connection.execute(
            "INSERT INTO models (tenant_id, model, base_model, run_id) VALUES ('acme', $1, 'b', $2)",
            model,
            run,
        )
        await connection.execute(
            "INSERT INTO run_examples SELECT tenant_id, $1, example_id, split FROM examples", run
        )
        await connection.execute(
            "INSERT INTO evaluations (tenant_id, run_id, model, example_id, answer)"
            " SELECT tenant_id, $1, $2, example_id, $3 FROM examples",
            run,
            model,
            MARK,
        )
        await connection.execute(
            "INSERT INTO request_replies (tenant_id, event_id, claimed_until, status, headers, body)"
            " VALUES ('acme', $1, now(), 200, '{}', $2)",
            uuid4(),
            MARK.encode(),
        )


async def test_a_person_and_a_tenant_are_forgotten(town: Town, faults: Faults) -> None:
    """A marker in documents, questions, answers, examples, letters, webhooks and streams is gone after an erasure."""
    await town.gateway()
    client = await town.tenant("acme")
    await town.start("all", "worker", "all")
    made = await client.post("/v1/webhooks", json={"url": await parrot(town), "types": ["*"]})
    assert made.status_code == 201, made.text
    await faults.add("embeddings", "400", match=f"{MARK} poison")
    used = await plant(town, client, subjectref=PERSON)
    await train_on(town)
    await client.put("/v1/collections/town/documents/other", json={"content": "Nobody's business."})
    await town.settled("acme")
    for pool in ("ingest", "answer"):
        await town.redis.set(f"penstock:v1:penstock:{pool}:paused", "1")
    [waiting] = await town.publish("acme", [document("late", f"{MARK} late", subjectref=PERSON)])

    planted = await tables_with(town.owner, MARK)
    expected = {"answers", "chunks", "deliveries", "delivery_attempts_default", "documents", "examples", "evaluations", "request_replies"}  # fmt: skip
    assert expected - {"delivery_attempts_default"} <= set(planted)
    assert any(name.startswith("delivery_attempts") for name in planted)
    assert any(name.startswith("events_") for name in planted)
    # A kept answer names its question and holds no text of its own.
    kept = "SELECT count(*) FROM answer_cache WHERE tenant_id = 'acme'"
    assert 1 <= await town.value(kept)
    assert await keys_with(town.redis, MARK)
    assert await town.redis.exists(f"arq:job:{waiting}")

    request = {"kind": "subject", "subjectref": PERSON, "dry_run": True}
    dry = await client.post("/v1/erasures", json=request)
    assert dry.status_code == 200, dry.text
    assert planted == await tables_with(town.owner, MARK)
    done = await client.post("/v1/erasures", json={**request, "dry_run": False})
    assert done.status_code == 200, done.text
    assert {} == await tables_with(town.owner, MARK)
    assert 0 == await town.value(kept)
    assert [] == await keys_with(town.redis, MARK)
    assert not await town.redis.exists(f"arq:job:{waiting}")
    assert await town.redis.zscore("penstock:ingest", str(waiting)) is None
    assert {} == await tables_with(town.owner, PERSON)

    purged = await town.rows(
        "SELECT data ->> 'document_id' AS name FROM events WHERE type = 'document.purged'"
    )
    assert ["d", "poison"] == sorted(row["name"] for row in purged)
    told = "SELECT count(*) FROM deliveries WHERE type = 'document.purged' AND body <> ''"
    assert 2 == await town.value(told)

    counts = done.json()["counts"]
    assert counts == {**dry.json()["counts"], "cached_embeddings": counts["cached_embeddings"]}
    assert (counts["chunks"], counts["tainted_runs"], counts["tainted_models"]) == (1, 1, 1)
    assert {"withdrawn"} == {row["status"] for row in await town.rows("SELECT status FROM examples")}
    [late] = await town.rows("SELECT status, error FROM events WHERE event_id = $1", waiting)
    assert (late["status"], late["error"]["code"]) == ("dead", "erased")
    answer = (await client.get(f"/v1/queries/{used}")).json()
    assert (answer["question"], answer["answer"]) == ("When does it sing in the morning?", None)
    assert "indexed" == (await client.get("/v1/collections/town/documents/other")).json()["status"]
    [model] = (await client.get("/v1/models")).json()["items"]
    assert model["tainted_at"] is not None
    blank = await town.value("SELECT delivery_id FROM deliveries WHERE body = '' LIMIT 1")
    assert 404 == (await client.post(f"/v1/deliveries/{blank}/replay")).status_code
    audited = await town.rows("SELECT actor, target FROM audit_log WHERE action = 'erase'")
    assert 1 == len(audited)
    assert audited[0]["target"].startswith("subject sha256:")

    for pool in ("ingest", "answer"):
        await town.redis.delete(f"penstock:v1:penstock:{pool}:paused")
    await plant(town, client)
    async with Database.open(town.servers.database_owner_url, role=None, size=2) as owner:
        await erase(owner, town.redis, "acme", Target("tenant", "acme"))
    assert {} == await tables_with(town.owner, MARK)
    assert [] == await keys_with(town.redis, MARK)
    assert 0 == await town.value("SELECT count(*) FROM documents WHERE tenant_id = 'acme'")
    assert 0 < await town.value("SELECT count(*) FROM event_keys WHERE tenant_id = 'acme'")

    async def refused() -> bool:
        return (await client.get("/v1/events")).status_code in {401, 403}

    await town.until(refused, "the tenant's key is refused")
    logs = {path.name: path.read_text(errors="replace") for path in town.logs.glob("*.log")}
    assert [] == [name for name, text in logs.items() if MARK in text or PERSON in text]

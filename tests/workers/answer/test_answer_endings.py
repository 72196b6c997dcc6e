from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from infra import attempts
from infra.answers import CANCELLED
from infra.database import queries
from schemas.inbound import QueryReceived
from schemas.states import AnswerState, sources
from schemas.work import Work
from tests.conftest import NewTenant
from tests.drive import Drive
from workers.answer.record import effect_of, end_answers
from workers.answer.result import Result
from workers.handling import Done, HandlerSpec, Outcome

ASKED = {"collections": ["docs"], "question": "How long?", "stream": False}
QUERY = QueryReceived.model_validate(ASKED)
RESULT = Result(
    AnswerState.ANSWERED,
    answer="Five years [1].",
    citations=[{"document_id": "d", "quote": "five years"}],
    passages=[{"marker": 1, "document_id": "d", "score": 0.25}],
    standalone="How long is it?",
    alias="chat",
    model="m",
    usage={"tokens_in": 3},
    timings_ms={"total": 1.5},
    report={"template": {"name": "default", "version": 0}},
    keep_as=b"key",
)
ENDPOINT = """
INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, types, secrets)
VALUES ($1, $2, 'https://example.org/hook', '{*}', '{}')
"""
WRITTEN = """
SELECT to_jsonb(a) - 'tenant_id' - 'query_id' - 'created_at' - 'finished_at' AS answer,
       a.finished_at IS NOT NULL AND a.created_at = e.accepted_at AS timed,
       to_jsonb(c) - 'tenant_id' - 'query_id' - 'made_at' AS kept,
       to_jsonb(s) - '{tenant_id,event_id,id,subject,accept_no,caused_by,accepted_at,finished_at,written_in}'::text[]
         #- '{data,query_id}' #- '{attributes,causationid}' AS said,
       s.subject = e.event_id::text AND s.data ->> 'query_id' = s.subject AND s.caused_by = e.event_id
         AND s.attributes ->> 'causationid' = s.subject AND s.finished_at IS NOT NULL AND s.id = s.event_id::text AS tied,
       e.status, e.attempts, e.finished_at IS NOT NULL AS finished, e.error
FROM events e
JOIN answers a ON a.tenant_id = e.tenant_id AND a.query_id = e.event_id
JOIN answer_cache c ON c.tenant_id = e.tenant_id AND c.query_id = e.event_id
JOIN events s ON s.tenant_id = e.tenant_id AND s.type = 'query.answered'
WHERE e.tenant_id = $1 AND e.type = 'query.received'
"""


async def answered(work: Work) -> Outcome:
    """A handler that has the answer at once."""
    return Done(effect_of(work, QUERY, RESULT))


async def test_one_call_writes_what_the_steps_write(bare: Drive, new_tenant: NewTenant) -> None:
    """With a webhook an answer is written step by step, without one by one call: the rows are the same but for the message."""
    bare.handlers["query.received"] = HandlerSpec(answered)
    plain, heard = await new_tenant(), await new_tenant()
    await bare.rows(ENDPOINT, heard, uuid4())
    attributes: dict[str, Any] = {"subjectref": "someone", "correlationid": "thread"}
    ids = [await bare.publish(tenant, "query.received", ASKED, **attributes) for tenant in (plain, heard)]
    await bare.run([(one, "query.received", "penstock:answer") for one in ids])
    [at_once], [by_steps] = [await bare.rows(WRITTEN, tenant) for tenant in (plain, heard)]
    assert at_once == by_steps
    assert (True, True, "done", "someone") == (
        at_once["timed"], at_once["tied"], at_once["status"], at_once["answer"]["subjectref"],
    )  # fmt: skip
    sent = "SELECT tenant_id, type FROM deliveries WHERE tenant_id = ANY ($1)"
    assert [{"tenant_id": heard, "type": "query.answered"}] == await bare.rows(sent, [plain, heard])


async def test_an_answer_is_written_under_its_token_and_once(bare: Drive, tenant: str) -> None:
    """An older token writes nothing, a repeated call nothing more, and a withdrawn question is told as such."""
    bare.handlers["query.received"] = HandlerSpec(answered)
    query_id = await bare.publish(tenant, "query.received", ASKED)
    database, token = bare.resources.database, time.time_ns() // 1000
    work = (await attempts.claim(database, [(query_id, token)]))[query_id]
    assert isinstance(work, Work)
    assert {} == await end_answers(database, [(work._replace(token=token - 1), (QUERY, RESULT))])
    assert [] == await bare.said(tenant, "query.answered")
    for _ in range(2):
        assert {query_id: True} == await end_answers(database, [(work, (QUERY, RESULT))])
    assert 1 == len(await bare.said(tenant, "query.answered"))
    withdrawn = await bare.publish(tenant, "query.received", ASKED)
    async with database.transaction(tenant) as connection:
        await connection.execute(
            queries("answer").cancel, tenant, withdrawn, CANCELLED, sources(AnswerState.FAILED)
        )
    await bare.run([(withdrawn, "query.received", "penstock:answer")])
    assert [CANCELLED] == [one["error"] for one in await bare.said(tenant, "query.failed")]
    assert ("done", 1) == (
        (await bare.event(withdrawn))["status"], len(await bare.said(tenant, "query.answered")),
    )  # fmt: skip

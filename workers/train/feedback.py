"""A `feedback.received` becomes an example here: the question with the answer that was good, or with the corrected one.

It waits for approval unless its dataset approves by itself. A bad rating without a correction teaches nothing and is
kept in the ledger only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from infra.database import queries
from schemas.errors import CallFailed, Conflict, NotFound
from schemas.inbound import FeedbackReceived
from schemas.registry import read_data
from schemas.states import AnswerState, ExampleState
from schemas.values import Message
from schemas.work import Work
from workers.handling import Done, Handle, Resources
from workers.train.admission import Admission
from workers.train.examples import check_example
from workers.train.intake import Entry, record, supplier_of

DEFAULT_ALIAS = "chat"


def open_feedback(resources: Resources, admission: Admission) -> Handle:
    """The handler of `feedback.received`."""

    async def handle(work: Work) -> Done:
        data = read_data(work.type, work.major, work.data)
        assert isinstance(data, FeedbackReceived)
        if data.corrected is None and data.rating != 1:
            return Done()
        async with resources.database.transaction(work.tenant_id, readonly=True) as connection:
            answer = await connection.fetchrow(
                queries("train").answer, work.tenant_id, _query_id(data.query_id)
            )
            if answer is None:
                raise NotFound("there is no such question", field="data.query_id")
            alias = answer["alias"] or DEFAULT_ALIAS
            dataset = await connection.fetchrow(queries("train").feedback_dataset, work.tenant_id, alias)
        if answer["status"] in {AnswerState.PENDING, AnswerState.STREAMING}:
            raise CallFailed("the question is not answered yet", retry_after=5.0)
        text = data.corrected or answer["answer"]
        if not text:
            raise Conflict("the question has no answer to confirm", field="data.corrected")
        checked = check_example(
            [Message(role="user", content=answer["question"]), Message(role="assistant", content=text)]
        )
        automatic = dataset is not None and dataset["approval"] == "automatic"
        entry = Entry(
            work.event_id,
            checked,
            ExampleState.FREE if automatic else ExampleState.PENDING,
            source=work.source,
            query_id=data.query_id,
            event_id=work.event_id,
            supplier=supplier_of(work),
            lineage=lineage_of(data.query_id, dict(answer), corrected=data.corrected is not None),
        )
        name = alias if dataset is None else dataset["dataset"]
        entries = await admission.prepare(work.tenant_id, name, [entry])
        return Done(
            partial(
                record,
                work=work,
                dataset=name,
                base_model=resources.settings.train_base_model,
                entries=entries,
            )
        )

    return handle


def lineage_of(query_id: str, answer: Mapping[str, Any], *, corrected: bool) -> dict[str, Any]:
    """What an example goes back to, kept with it because answers are deleted sooner than examples."""
    cited = {one["chunk_id"] for one in answer["citations"] if "chunk_id" in one}
    documents = [
        {name: one.get(name) for name in ("collection", "document_id", "chunk_id")}
        | {"cited": one.get("chunk_id") in cited}
        for one in answer["passages"]
    ]
    return {"query_id": query_id, "model": answer["model"], "corrected": corrected, "documents": documents}


def _query_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("there is no such question", field="data.query_id") from None

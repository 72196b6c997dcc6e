"""An `example.recorded` is checked and admitted here, and goes on to its dataset."""

from __future__ import annotations

from functools import partial

from schemas.inbound import ExampleRecorded
from schemas.registry import read_data
from schemas.work import Work
from workers.handling import Done, Handle
from workers.train.admission import Admission
from workers.train.examples import check_example
from workers.train.intake import Entry, record, supplier_of


def open_recorded(admission: Admission, base_model: str) -> Handle:
    """The handler of `example.recorded`; datasets that it makes train on this base model."""

    async def handle(work: Work) -> Done:
        data = read_data(work.type, work.major, work.data)
        assert isinstance(data, ExampleRecorded)
        entry = Entry(
            work.event_id,
            check_example(data.messages),
            weight=data.weight,
            source=data.source or work.source,
            event_id=work.event_id,
            supplier=supplier_of(work),
        )
        entries = await admission.prepare(work.tenant_id, data.dataset, [entry])
        return Done(partial(record, work=work, dataset=data.dataset, base_model=base_model, entries=entries))

    return handle

"""A pool's name becomes its queue and its handlers; wings are imported only by the processes that run them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module

from schemas.registry import ANSWER, DELIVER, INGEST, TRAIN
from workers.handling import HandlerSpec, OpenHandlers, Resources


@dataclass(frozen=True, slots=True)
class Pool:
    """One wing and the queue that feeds it.

    Attributes:
        calls_models: whether the wing speaks to the model API; others never import its client.
        isolates: whether a job whose worker died twice is suspected of killing it, and runs in a child process. Not
            where jobs read nothing foreign but a reply of bounded size: there a death says nothing of the job, and
            many such jobs wait for others' servers, so that running them one by one would let a slow one stop all.
        width: how many jobs a process holds for each one of `PENSTOCK_CONCURRENCY`. Jobs that mostly wait for others'
            servers need more: ten receivers that hang must not hold a large share.
    """

    name: str
    queue: str
    module: str
    calls_models: bool
    isolates: bool = True
    width: int = 1


POOLS: Mapping[str, Pool] = {
    pool.name: pool
    for pool in (
        Pool("ingest", INGEST, "workers.ingest.pool", calls_models=True),
        Pool("answer", ANSWER, "workers.answer.pool", calls_models=True),
        Pool("train", TRAIN, "workers.train.pool", calls_models=True),
        Pool("deliver", DELIVER, "workers.deliver.pool", calls_models=False, isolates=False, width=4),
    )
}


async def open_pool(pool: Pool, resources: Resources, held: AsyncExitStack) -> Mapping[str, HandlerSpec]:
    """Import a wing and open its handlers; `held` closes what it opened."""
    open_handlers: OpenHandlers = import_module(pool.module).open_handlers
    return await held.enter_async_context(open_handlers(resources))

"""Many small calls pass through here and leave as few large ones: ledger writes, claims, embeddings.

While one flush is under way new items collect, so the batch size follows the load by itself: alone, an item leaves at
once; under load, batches grow and the cost of a round trip is shared.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Gathers concurrent calls into batches.

    Each item gets the result, or the exception, at its own position of what `flush` returns. When `flush` itself
    raises, every item of that batch gets the error.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | BaseException]]],
        *,
        limit: int,
        weight: Callable[[Item], int] | None = None,
        weight_limit: int = 0,
        linger: float = 0.0,
        parallel: int = 1,
    ) -> None:
        """Prepare; nothing runs before the first call.

        Args:
            flush: does the work of a batch and returns as many results as it got items.
            limit: items per batch at most.
            weight: an item's size, such as its tokens or bytes.
            weight_limit: sum of weights per batch at most; an item above it goes alone.
            linger: seconds to wait for company when nothing is under way.
            parallel: batches under way at once.
        """
        self._flush = flush
        self._limit = limit
        self._weight = weight
        self._weight_limit = weight_limit
        self._linger = linger
        self._parallel = parallel
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Result:
        """Hand over one item and wait for its result."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._tasks) < self._parallel:
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def aclose(self) -> None:
        """Wait until everything that was handed over has left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _drain(self) -> None:
        if self._linger:
            await asyncio.sleep(self._linger)
        else:
            # One turn of the loop lets every caller that is ready hand over its item.
            await asyncio.sleep(0)
        try:
            while batch := self._take():
                await self._run(batch)
        finally:
            # At once, not in a done callback, which runs after the callers of the last batch: the item that one of
            # them hands over next must find that nobody is draining any more.
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        total = 0
        while self._waiting and len(batch) < self._limit:
            item, future = self._waiting[0]
            if future.done():  # its caller was cancelled
                self._waiting.popleft()
                continue
            if self._weight is not None:
                total += self._weight(item)
                if batch and total > self._weight_limit:
                    break
            batch.append(self._waiting.popleft())
        return batch

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results: Sequence[Result | BaseException] = await self._flush([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - it is handed to every caller of the batch
            results = [error] * len(batch)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
                with suppress(asyncio.InvalidStateError):
                    # The caller may be gone; its error must not be reported as never retrieved.
                    future.exception()
            else:
                future.set_result(result)

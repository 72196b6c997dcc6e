import asyncio
from collections.abc import Sequence

import pytest

from infra.coalesce import Coalescer


async def test_concurrent_calls_share_a_flush() -> None:
    """Calls that are ready together leave as one batch, in order, each with its own result."""
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return [item * 2 for item in items]

    call: Coalescer[int, int] = Coalescer(flush, limit=100)
    assert [0, 2, 4, 6] == await asyncio.gather(*(call(item) for item in range(4)))
    assert [[0, 1, 2, 3]] == batches


async def test_limits_of_count_and_weight_cut_batches() -> None:
    """A batch holds no more than the limits allow; an item that is too heavy goes alone."""
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return list(items)

    call: Coalescer[int, int] = Coalescer(flush, limit=3, weight=lambda item: item, weight_limit=10)
    await asyncio.gather(*(call(item) for item in (1, 2, 3, 4, 20, 6, 5)))
    assert [[1, 2, 3], [4], [20], [6], [5]] == batches


async def test_an_exception_reaches_its_own_caller_only() -> None:
    """An exception in the place of a result is raised at that caller; the others get their results."""

    async def flush(items: Sequence[int]) -> list[int | BaseException]:
        return [ValueError(str(item)) if item == 1 else item for item in items]

    call: Coalescer[int, int] = Coalescer(flush, limit=10)
    results = await asyncio.gather(*(call(item) for item in range(3)), return_exceptions=True)
    assert [0, 2] == [results[0], results[2]]
    assert isinstance(results[1], ValueError)


async def test_a_failed_flush_reaches_every_caller_and_the_next_call_works() -> None:
    """When the flush raises, each caller of the batch gets the error, and the coalescer goes on."""
    failing = True

    async def flush(items: Sequence[int]) -> list[int]:
        if failing:
            raise OSError("away")
        return list(items)

    call: Coalescer[int, int] = Coalescer(flush, limit=10)
    results = await asyncio.gather(call(1), call(2), return_exceptions=True)
    assert [OSError, OSError] == [type(result) for result in results]
    failing = False
    assert await call(3) == 3


async def test_a_cancelled_caller_is_left_out() -> None:
    """An item whose caller went away before the flush is not worked on."""
    entered, release = asyncio.Event(), asyncio.Event()
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        entered.set()
        await release.wait()
        return list(items)

    call: Coalescer[int, int] = Coalescer(flush, limit=10)
    first = asyncio.create_task(call(1))
    await entered.wait()
    second, third = asyncio.create_task(call(2)), asyncio.create_task(call(3))
    await asyncio.sleep(0)
    second.cancel()
    release.set()
    assert (1, 3) == (await first, await third)
    assert [[1], [3]] == batches
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_closing_waits_for_what_was_handed_over() -> None:
    """After aclose every item has left."""
    done: list[int] = []

    async def flush(items: Sequence[int]) -> list[int]:
        await asyncio.sleep(0.01)
        done.extend(items)
        return list(items)

    call: Coalescer[int, int] = Coalescer(flush, limit=1)
    tasks = [asyncio.create_task(call(item)) for item in range(3)]
    await asyncio.sleep(0)
    await call.aclose()
    assert [0, 1, 2] == done
    await asyncio.gather(*tasks)


async def test_an_item_handed_over_while_the_last_batch_ends_is_worked_on() -> None:
    """A caller that wakes and hands over its next item at once, before anything else runs, is not left waiting."""

    async def flush(items: Sequence[int]) -> list[int]:
        return list(items)

    call: Coalescer[int, int] = Coalescer(flush, limit=10)
    async with asyncio.timeout(10):
        assert [0, 1, 2] == [await call(item) for item in range(3)]

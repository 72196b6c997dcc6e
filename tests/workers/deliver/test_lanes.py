from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from workers.deliver.lanes import LaneFull, Lanes


async def hold(lanes: Lanes, endpoint: object, release: asyncio.Event, inside: asyncio.Queue[int]) -> None:
    """Stay in the endpoint's lane until released."""
    async with lanes.enter(endpoint):  # type: ignore[arg-type]
        inside.put_nowait(1)
        await release.wait()


async def test_a_lane_holds_so_many_and_no_more() -> None:
    """A full lane takes nobody until somebody leaves; other endpoints are not affected; empty lanes are forgotten."""
    lanes = Lanes(in_flight=2, patience=0.01)
    slow, other, release = uuid4(), uuid4(), asyncio.Event()
    inside: asyncio.Queue[int] = asyncio.Queue()
    held = [asyncio.create_task(hold(lanes, slow, release, inside)) for _ in range(2)]
    await inside.get()
    await inside.get()
    with pytest.raises(LaneFull):
        async with lanes.enter(slow):
            raise AssertionError("a third one got in")
    async with lanes.enter(other):
        assert 2 == len(lanes)
    release.set()
    await asyncio.gather(*held)
    async with lanes.enter(slow):
        assert 1 == len(lanes)
    assert 0 == len(lanes)


async def test_a_moving_lane_is_waited_for() -> None:
    """An attempt that finds the lane full gets the place that becomes free."""
    lanes = Lanes(in_flight=1, patience=30)
    endpoint, release = uuid4(), asyncio.Event()
    inside: asyncio.Queue[int] = asyncio.Queue()
    first = asyncio.create_task(hold(lanes, endpoint, release, inside))
    await inside.get()
    second = asyncio.create_task(hold(lanes, endpoint, release, inside))
    await asyncio.sleep(0)
    assert inside.empty()
    release.set()
    await asyncio.gather(first, second)
    assert 1 == inside.qsize()


async def test_a_cancelled_attempt_gives_its_place_back() -> None:
    """A place is free again after its holder was cancelled, and so is that of one that only waited."""
    lanes = Lanes(in_flight=1, patience=30)
    endpoint, never = uuid4(), asyncio.Event()
    inside: asyncio.Queue[int] = asyncio.Queue()
    tasks = [asyncio.create_task(hold(lanes, endpoint, never, inside)) for _ in range(2)]
    await inside.get()
    for task in reversed(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 0 == len(lanes)
    async with lanes.enter(endpoint):
        assert 1 == len(lanes)

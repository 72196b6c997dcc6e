from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from workers.deliver.gates import FIRST, KEPT, MOST, PATIENCE, SPREAD, Gate, Gates, Shut
from workers.deliver.schedule import Failed, Replied

OK, TIMEOUT = Replied(200), Failed("timeout")


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


async def passed(gate: Gate, times: int) -> None:
    """Let so many attempts through, all of them well."""
    for _ in range(times):
        await gate.enter()
        gate.leave(OK, 0.001)


async def test_places_grow_with_success_and_shrink_with_failure() -> None:
    """An unknown endpoint gets few places, one that answers more, one that does not a single one."""
    gate = Gate(Clock())
    assert FIRST == gate.places
    await passed(gate, 20)
    assert MOST == gate.places
    for _ in range(4):
        await gate.enter()
        gate.leave(TIMEOUT, 15)
    assert 1 == gate.places


async def test_a_gate_lets_so_many_through_and_no_more() -> None:
    """When the places of a slow endpoint are taken the next is sent away at once, and comes back when one may be free."""
    clock = Clock()
    gate = Gate(clock, seconds=30.0, gap=15.0, places=2.0)
    for _ in range(2):
        await gate.enter()
    delays = []
    for _ in range(3):
        with pytest.raises(Shut) as shut:
            await gate.enter()
        delays.append(shut.value.delay)
    for delay, expected in zip(delays, (15, 30, 45), strict=True):
        assert expected * 0.9 <= delay <= (expected + 0.25) * 1.1
    gate.leave(OK, 0.001)
    await gate.enter()
    assert 2 == gate.under_way


async def test_a_moving_gate_is_waited_for() -> None:
    """An attempt that finds the places of a quick endpoint taken gets the one that becomes free, in order."""
    gate = Gate(Clock(), places=1.0, proven=True)
    await gate.enter()
    came: list[int] = []

    async def come(number: int) -> None:
        await gate.enter()
        came.append(number)
        gate.leave(None)

    tasks = [asyncio.create_task(come(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert (3, []) == (len(gate.waiting), came)
    gate.leave(None)
    await asyncio.gather(*tasks)
    assert ([0, 1, 2], 0, 0) == (came, gate.under_way, len(gate.waiting))


async def test_a_cancelled_attempt_gives_its_place_back() -> None:
    """A place is free again after one that waited for it was cancelled, even at the moment when it was given."""
    gate = Gate(Clock(), places=1.0, proven=True)
    await gate.enter()
    waiting = [asyncio.create_task(gate.enter()) for _ in range(2)]
    await asyncio.sleep(0)
    gate.leave(None)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    await waiting[1]
    assert 1 == gate.under_way
    gate.leave(None)
    assert (0, 0) == (gate.under_way, len(gate.waiting))


async def test_a_paused_gate_is_shut_and_then_lets_one_through() -> None:
    """While the breaker pauses nobody passes; then one, and all of them when that one arrived."""
    clock = Clock()
    gate = Gate(clock, places=MOST)
    while not gate.breaker.is_open:
        await gate.enter()
        gate.leave(TIMEOUT, 15)
    with pytest.raises(Shut) as shut:
        await gate.enter()
    assert shut.value.delay >= (gate.breaker.paused_until - clock.now) * 0.9
    clock.now = gate.breaker.paused_until
    await gate.enter()
    with pytest.raises(Shut):
        await gate.enter()
    gate.leave(OK, 0.001)
    for _ in range(int(gate.places)):
        await gate.enter()
    assert not gate.breaker.is_open


async def test_who_would_be_sent_away_need_not_try() -> None:
    """A gate says beforehand whether the next one gets a place, now or in a moment; one that nobody asked for is not made."""
    clock = Clock()
    gates, endpoint = Gates(clock), uuid4()
    assert [None, None, None] == [gates.known(None), gates.known("x"), gates.known(str(endpoint))]
    gate = gates.of(endpoint)
    assert gates.known(str(endpoint)) is gate
    assert not gate.is_shut()
    await gate.enter()
    assert not gate.is_shut()
    clock.now += 2 * PATIENCE
    assert gate.is_shut()
    with pytest.raises(Shut):
        await gate.enter()


async def test_a_backlog_comes_back_spread_out() -> None:
    """However long the backlog, nobody waits longer than the spread, and not all come back at once."""
    clock = Clock()
    gate = Gate(clock, seconds=15.0, gap=15.0)
    delays = [gate.turned_away() for _ in range(1000)]
    assert max(delays) <= SPREAD * 1.11
    assert 50 < len({round(delay) for delay in delays})


async def test_silence_slows_a_gate_down() -> None:
    """While nothing ends of what is under way nobody waits, and the rest comes back ever later; an end makes up for it."""
    clock = Clock()
    gate = Gate(clock, proven=True)
    await gate.enter()
    clock.now += 2 * PATIENCE
    delays = []
    for _ in range(3):
        with pytest.raises(Shut) as shut:
            await gate.enter()
        delays.append(shut.value.delay)
        clock.now += PATIENCE
    for delay, expected in zip(delays, (2, 4, 7), strict=True):
        assert expected * PATIENCE * 0.9 <= delay <= (expected * PATIENCE + 0.25) * 1.1
    gate.leave(OK, 0.001)
    assert gate.pace() < PATIENCE
    await passed(gate, 20)
    assert gate.pace() < PATIENCE / 10


async def test_a_busy_process_is_not_taken_for_a_slow_endpoint() -> None:
    """Attempts that take long because there are many of them, and end one after the other quickly, show a quick endpoint."""
    clock = Clock()
    gate = Gate(clock)
    await gate.enter()
    for _ in range(40):
        await gate.enter() if gate.under_way < int(gate.places) else None
        clock.now += 0.001
        gate.leave(OK, 0.3)
        while gate.under_way < int(gate.places):
            await gate.enter()
    assert gate.pace() < 0.002


async def test_few_wait_for_an_endpoint_that_has_not_answered_yet() -> None:
    """Whoever waits holds a slot of the worker: until something arrived as many may wait as have places, then more."""
    gate = Gate(Clock())
    tasks = [asyncio.create_task(gate.enter()) for _ in range(10)]
    done, waiting = await asyncio.wait(tasks, timeout=0.01)
    assert (int(FIRST), 10 - 2 * int(FIRST)) == (
        len(waiting),
        sum(isinstance(one.exception(), Shut) for one in done),
    )
    gate.leave(OK, 0.001)
    more = [asyncio.create_task(gate.enter()) for _ in range(10)]
    await asyncio.sleep(0)
    assert not any(one.done() and one.exception() for one in more)
    for one in (*waiting, *more):
        one.cancel()
    await asyncio.gather(*waiting, *more, return_exceptions=True)


def test_gates_are_forgotten_in_time() -> None:
    """Only so many idle endpoints are remembered; what is in use stays."""
    gates = Gates(Clock())
    busy = uuid4()
    gates.of(busy).under_way = 1
    for _ in range(10):
        gates.of(uuid4())
    assert 11 == len(gates)
    assert gates.of(busy).under_way == 1
    assert KEPT >= 10_000

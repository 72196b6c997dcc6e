"""One timer for many timeouts."""

from __future__ import annotations

import asyncio

from tests.workers.engine.harness import wait_until
from workers.engine.deadlines import Deadlines


async def test_only_what_stays_too_long_is_called_out() -> None:
    """Items that leave in time are not, whatever their timeouts; the others are, in the order of their starts."""
    called: list[str] = []
    deadlines: Deadlines[str] = Deadlines(called.append)
    deadlines.add(["first"], 0.05)
    deadlines.add(["left"], 0.05)
    deadlines.add(["patient"], 3600.0)
    await asyncio.sleep(0.01)
    deadlines.add(["second"], 0.05)
    deadlines.drop("left", 0.05)
    deadlines.drop("never there", 7.0)

    async def both() -> bool:
        return len(called) == 2

    await wait_until(both)
    deadlines.drop("patient", 3600.0)
    assert ["first", "second"] == called


async def test_a_timeout_can_be_used_again_after_a_rest() -> None:
    """When all items of a timeout are gone its timer ends, and the next item starts a new one."""
    called: list[int] = []
    deadlines: Deadlines[int] = Deadlines(called.append)
    for number in range(2):
        deadlines.add([number], 0.01)

        async def out(number: int = number) -> bool:
            return number in called

        await wait_until(out)
    assert [0, 1] == called

"""A request that failed for some of its texts comes in, and is repeated without them until the others have succeeded.

Only what may be about single texts is divided: a refusal of the input, a vector that is no vector. When the fault is
not in a text, every part would fail again, and a bound on the number of calls keeps that from costing thousands.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from schemas.errors import CallFailed, PenstockError, Refused

Item = TypeVar("Item")
Result = TypeVar("Result")
Outcome: TypeAlias = Result | PenstockError

MOST_CALLS = 64
"""Enough to find two texts among 2,048; what is left then is tried again later, in other company."""
_ABOUT_INPUT = frozenset({400, 413, 422})
_INPUT = re.compile(r"input(?:\[(\d{1,5})\]|\.(\d{1,5}))?")


def blamed(error: PenstockError, size: int) -> range:
    """Which of ``size`` texts an error may be about: one, any of them (all), or none."""
    where = _INPUT.fullmatch(error.field) if error.field else None
    index = where and (where[1] or where[2])
    if index is not None and int(index) < size and isinstance(error, CallFailed | Refused):
        return range(int(index), int(index) + 1)
    if (
        isinstance(error, Refused)
        and error.provider_status in _ABOUT_INPUT
        and (where or error.field is None)
    ):
        return range(size)
    return range(0)


async def divide(
    items: Sequence[Item], call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]
) -> list[Outcome[Result]]:
    """Call for all items together, and again for fewer of them where single ones are at fault.

    Args:
        items: what to call for.
        call: returns as many results as it got items, or raises for all of them.

    Returns:
        For each item its result, or the error that it caused or met.
    """
    results: dict[int, Outcome[Result]] = {}
    waiting = deque([list(range(len(items)))])
    calls = firsts = 0
    while waiting:
        part = waiting.popleft()
        if calls == MOST_CALLS:
            results |= dict.fromkeys(part, CallFailed("the texts were refused together with too many others"))
            continue
        calls += 1
        try:
            results |= zip(part, await call([items[index] for index in part]), strict=True)
        except PenstockError as error:
            suspects = blamed(error, len(part))
            # Twice the very first text is not a text's fault: so looks a reply that is wrong from end to end.
            firsts += suspects == range(1) and isinstance(error, CallFailed)
            if len(part) == 1 or not suspects or firsts > 1:
                results |= dict.fromkeys(part, error)
            elif len(suspects) == 1:
                results[part.pop(suspects[0])] = error
                waiting.append(part)
            else:
                middle = len(part) // 2
                waiting += (part[:middle], part[middle:])
    return [results[index] for index in range(len(items))]

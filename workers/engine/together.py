"""Jobs of one type that a claim brought together pass through here to a handler that takes many, and get a result each.

The engine runs each job by itself, with its own timeout, verdict and settlement; what meets here is only the call. Jobs
that start in the same turn of the loop share it, up to `most`; nobody waits for company.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from arq.worker import Function, func

from infra.coalesce import Coalescer
from schemas.errors import Retryable, Uncharged

Item = TypeVar("Item")
Result = TypeVar("Result")

Many = Callable[[Sequence[Item]], Awaitable[Sequence[Result | BaseException]]]
"""Takes items and returns a result, or the error, for each, in order."""


def together(
    handle: Many[Item, Result], *, most: int, parallel: int = 4
) -> Callable[[Item], Awaitable[Result]]:
    """Make a handler of one out of a handler of many; for `HandlerSpec.handle` and for `batch`.

    When the handler of many raises, the items are tried one by one, so that what shares a call with poison succeeds
    (promise P7); an error that says "not now" is everybody's and is not provoked again.

    Args:
        handle: gets up to `most` items at once; an exception among its results is raised for that item alone.
        most: items per call.
        parallel: calls under way at once.
    """

    async def flush(items: Sequence[Item]) -> Sequence[Result | BaseException]:
        try:
            return await handle(items)
        except (Retryable, Uncharged) as error:
            return [error] * len(items)
        except Exception as error:  # noqa: BLE001 - each item gets its own
            if len(items) == 1:
                return [error]
            return [result for item in items for result in await flush([item])]

    return Coalescer[Item, Result](flush, limit=most, parallel=parallel)


@dataclass(frozen=True, slots=True)
class Call:
    """One job of a batch function: arq's context of the job, and its arguments."""

    ctx: Mapping[Any, Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def batch(handle: Many[Call, Any], *, name: str, most: int, **options: Any) -> Function:
    """An arq function that is called with up to `most` jobs of its name together.

    Args:
        handle: gets the calls; returns a result for each.
        name: arq's function name.
        most: jobs per call.
        options: of `arq.func`, per job: `timeout`, `max_tries`, `keep_result`.
    """
    gathered = together(handle, most=most)

    async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
        return await gathered(Call(ctx, args, kwargs))

    return func(run, name=name, **options)

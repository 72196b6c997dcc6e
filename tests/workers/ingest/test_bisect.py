from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import CallFailed, PenstockError, RateLimited, Refused
from workers.ingest.bisect import MOST_CALLS, blamed, divide


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Refused(provider_status=400), range(10)),
        (Refused(provider_status=400, field="input"), range(10)),
        (Refused(provider_status=400, field="input[3]"), range(3, 4)),
        (Refused(provider_status=400, field="input.3"), range(3, 4)),
        (Refused(provider_status=400, field="input[99]"), range(10)),
        (Refused(provider_status=400, field="dimensions"), range(0)),
        (Refused(provider_status=404), range(0)),
        (CallFailed(field="input[3]"), range(3, 4)),
        (CallFailed(), range(0)),
        (RateLimited(), range(0)),
    ],
)
def test_who_is_blamed(error: PenstockError, expected: range) -> None:
    """A refusal of the input may be about any text, one with an index about that text, all else about none."""
    assert blamed(error, 10) == expected


@given(
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=2)))
)
async def test_up_to_two_refused_texts_fail_alone(case: tuple[int, set[int]]) -> None:
    """Everybody else gets a result, within the bound on calls."""
    size, bad = case
    calls = 0

    async def call(items: Sequence[int]) -> Sequence[int]:
        nonlocal calls
        calls += 1
        if bad.intersection(items):
            raise Refused(provider_status=400)
        return [item * 2 for item in items]

    results = await divide(range(size), call)
    assert [index for index, result in enumerate(results) if isinstance(result, Refused)] == sorted(bad)
    assert [result for result in results if not isinstance(result, Refused)] == [
        index * 2 for index in range(size) if index not in bad
    ]
    assert calls <= MOST_CALLS


async def test_a_named_text_costs_one_more_call() -> None:
    """When the error says which text it was, the others are called for at once."""
    sizes = []

    async def call(items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        if 7 in items:
            raise CallFailed(field=f"input[{list(items).index(7)}]")
        return items

    results = await divide(range(100), call)
    assert sizes == [100, 99]
    assert [index for index, result in enumerate(results) if isinstance(result, CallFailed)] == [7]


@pytest.mark.parametrize("error", [RateLimited(), CallFailed(), Refused(provider_status=404)])
async def test_a_fault_that_is_no_text_s_costs_no_further_call(error: PenstockError) -> None:
    """Nothing is divided; everybody gets the error."""
    calls = 0

    async def call(items: Sequence[int]) -> Sequence[int]:
        nonlocal calls
        calls += bool(items)
        raise error

    assert await divide(range(100), call) == [error] * 100
    assert calls == 1


async def test_a_reply_that_is_wrong_from_end_to_end_is_recognised() -> None:
    """A model of another width blames the first text each time: after two calls it is believed to be the reply."""
    calls = 0

    async def call(items: Sequence[int]) -> Sequence[int]:
        nonlocal calls
        calls += bool(items)
        raise CallFailed(field="input[0]")

    results = await divide(range(2048), call)
    assert all(isinstance(result, CallFailed) for result in results)
    assert calls == 2


async def test_the_number_of_calls_is_bounded() -> None:
    """When every text is refused, the search stops; what was not tried alone may be tried again."""
    calls = 0

    async def call(items: Sequence[int]) -> Sequence[int]:
        nonlocal calls
        calls += bool(items)
        raise Refused(provider_status=400)

    results = await divide(range(2048), call)
    assert calls == MOST_CALLS
    assert all(isinstance(result, CallFailed | Refused) for result in results)

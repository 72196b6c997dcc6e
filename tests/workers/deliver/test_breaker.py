from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.deliver.breaker import (
    FIRST_PAUSE,
    LONGEST_ASKED,
    LONGEST_PAUSE,
    MEMORY,
    MINIMUM,
    WINDOW,
    Breaker,
    is_down,
)
from workers.deliver.schedule import Failed, Replied, Result

OK, BROKEN, SLOW, TIMEOUT = Replied(200), Replied(500), Replied(503), Failed("timeout")


def after(*results: Result, at: float = 100.0) -> Breaker:
    """A breaker that heard these, one a second."""
    breaker = Breaker()
    for second, result in enumerate(results):
        breaker.heard(result, at + second, 0.0)
    return breaker


@pytest.mark.parametrize(
    ("result", "down"),
    [
        *((Replied(status), False) for status in (200, 204, 302, 400, 401, 404, 410, 422)),
        *((Replied(status), True) for status in (408, 429, 500, 502, 503, 504)),
        (TIMEOUT, True),
        (Failed("connect"), True),
    ],
)
def test_what_counts_as_down(result: Result, *, down: bool) -> None:
    """No answer, or one that says overload, counts; an answer that refuses the message says that somebody is there."""
    assert down is is_down(result)


@pytest.mark.parametrize(
    ("results", "is_open"),
    [
        ([TIMEOUT] * (MINIMUM - 1), False),
        ([TIMEOUT] * MINIMUM, True),
        ([BROKEN] * MINIMUM, True),
        ([Replied(404)] * 50, False),
        ([OK] * WINDOW + [BROKEN] * 15, False),
        ([OK] * WINDOW + [BROKEN] * 16, True),
        ([OK, BROKEN, OK] * 10, False),
        ([OK, BROKEN, BROKEN] * 10, False),
        ([OK] + [BROKEN] * (MINIMUM - 1), True),
    ],
)
def test_opens_when_most_of_the_window_failed(results: list[Result], *, is_open: bool) -> None:
    """It takes eight results and four failures out of five; a receiver that fails sometimes is not cut off."""
    assert is_open is after(*results).is_open


def test_old_failures_are_forgotten() -> None:
    """Failures of long ago do not add up with new ones."""
    breaker = after(*[BROKEN] * (MINIMUM - 1))
    assert breaker.heard(BROKEN, 100 + MEMORY + MINIMUM, 0.0) is None


def test_half_open_closes_on_success_and_opens_for_longer_on_failure() -> None:
    """After each failed attempt to find out the pause doubles, up to its bound; one success ends it and its history."""
    breaker = after(*[TIMEOUT] * (MINIMUM - 1), at=0.0)
    now, pauses = 100.0, []
    for _ in range(9):
        pause = breaker.heard(TIMEOUT, now, 0.0)
        assert pause is not None
        pauses.append(pause)
        now = breaker.paused_until
    assert [FIRST_PAUSE * 2**n for n in range(6)] + [LONGEST_PAUSE] * 3 == pauses
    assert breaker.heard(OK, now, 0.0) is None
    assert (False, 0) == (breaker.is_open, breaker.strikes)
    assert breaker.heard(TIMEOUT, now, 0.0) is None


def test_what_was_under_way_changes_nothing() -> None:
    """Results of attempts that began before the pause neither lengthen nor end it."""
    breaker = after(*[TIMEOUT] * MINIMUM, at=0.0)
    until = breaker.paused_until
    assert [None, None] == [breaker.heard(one, until - 1, 0.0) for one in (TIMEOUT, OK)]
    assert (until, True) == (breaker.paused_until, breaker.is_open)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_slowing_down_is_obeyed_at_once(status: int) -> None:
    """One 429, 502, 503 or 504 pauses the endpoint; by how long it asked, within a bound, or shortly."""
    assert 1.0 == Breaker().heard(Replied(status), 100.0, 0.0)
    assert 7.0 == Breaker().heard(Replied(status, 7.0), 100.0, 0.0)
    assert LONGEST_ASKED == Breaker().heard(Replied(status, 1e9), 100.0, 0.0)
    assert Breaker().heard(Replied(500, 7.0), 100.0, 0.0) is None


def test_a_longer_wish_lengthens_the_pause() -> None:
    """Of two answers the one that asks for the longer pause counts, also when it comes during the first."""
    breaker = after(Replied(429, 5.0))
    assert breaker.heard(Replied(429, 2.0), 101.0, 0.0) is None
    assert 60.0 == breaker.heard(Replied(429, 60.0), 102.0, 0.0)
    assert 162.0 == breaker.paused_until


@given(st.lists(st.sampled_from([OK, BROKEN, SLOW, TIMEOUT, Replied(404)]), max_size=60), st.floats(-1, 1))
def test_no_pause_is_longer_than_its_bound(results: list[Result], spread: float) -> None:
    """Whatever comes, a pause that we chose ends within six minutes, and a working receiver is not paused."""
    breaker, now = Breaker(), 0.0
    for result in results:
        now = max(now, breaker.paused_until) + 1
        pause = breaker.heard(result, now, spread)
        assert pause is None or 0 < pause <= LONGEST_PAUSE * 1.2
        assert result != OK or not breaker.is_open

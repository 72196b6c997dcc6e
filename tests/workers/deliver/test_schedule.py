from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadInput, BlockedTarget, CallFailed, Misconfigured, PenstockError, Unavailable
from workers.deliver import schedule
from workers.deliver.schedule import (
    DELAYS,
    MAX_ATTEMPTS,
    MAX_RETRY_AFTER,
    OUR_PATIENCE,
    Dead,
    Decision,
    Delivered,
    Disable,
    Failed,
    Impossible,
    OurFault,
    Replied,
    Result,
    RetryAt,
    decide,
)

HOUR = 3600.0
TIMEOUT = Failed("timeout", "too slow")
OURS = OurFault("dns", "no name servers")


@pytest.mark.parametrize(
    ("result", "attempt", "age", "expected"),
    [
        (Replied(200), 1, 0, Delivered()),
        (Replied(204), 10, 0, Delivered()),
        (Replied(299), 1, 0, Delivered()),
        (Replied(199), 1, 0, RetryAt(5)),
        (Replied(301), 1, 0, RetryAt(5)),
        (Replied(308), 2, 0, RetryAt(300)),
        (Replied(400), 3, 0, RetryAt(1800)),
        (Replied(404), 4, 0, RetryAt(2 * HOUR)),
        (Replied(500), 5, 0, RetryAt(5 * HOUR)),
        (Replied(503), 6, 0, RetryAt(10 * HOUR)),
        (TIMEOUT, 7, 0, RetryAt(14 * HOUR)),
        (Failed("tls"), 8, 0, RetryAt(20 * HOUR)),
        (Failed("connect"), 9, 0, RetryAt(24 * HOUR)),
        (Replied(500), 10, 0, Dead("given up after 10 attempts; at last: the receiver answered 500")),
        (TIMEOUT, 11, 0, Dead("given up after 11 attempts; at last: too slow")),
        (Replied(999), 1, 0, RetryAt(5)),
        # 410 ends it at any attempt.
        (Replied(410), 1, 0, Disable("the receiver answered 410 Gone")),
        (Replied(410), 10, 0, Disable("the receiver answered 410 Gone")),
        # Retry-After lengthens, never shortens, and has a bound.
        (Replied(429, 60), 1, 0, RetryAt(60)),
        (Replied(503, 60), 2, 0, RetryAt(300)),
        (Replied(503, 10**9), 1, 0, RetryAt(MAX_RETRY_AFTER)),
        (Replied(500, 0), 1, 0, RetryAt(5)),
        (Replied(200, 60), 1, 0, Delivered()),
        (Replied(429, 60), 10, 0, Dead("given up after 10 attempts; at last: the receiver answered 429")),
        # Our own faults use up no attempt, wait longer the older the message is, and do not wait for ever.
        (OURS, 1, 0, RetryAt(30, charged=False)),
        (OURS, 10, 0, RetryAt(30, charged=False)),
        (OURS, 1, 400, RetryAt(100, charged=False)),
        (OURS, 1, 9 * HOUR, RetryAt(900, charged=False)),
        (OURS, 1, OUR_PATIENCE, RetryAt(5)),
        (OURS, 10, OUR_PATIENCE, Dead("given up after 10 attempts; at last: no name servers")),
        # What cannot be sent at all is not tried again.
        (Impossible("blocked_target", "no"), 1, 0, Dead("no")),
        (Impossible("headers", ""), 1, 0, Dead("headers")),
    ],
)
def test_decisions(result: Result, attempt: int, age: float, expected: Decision) -> None:
    """Each result leads to exactly the decision that Standard Webhooks and our schedule ask for."""
    assert expected == decide(result, attempt=attempt, age=age, spread=0.0)


def test_the_schedule_spans_75_hours() -> None:
    """Ten attempts over about 75 hours: a receiver may be down for a weekend."""
    assert (10, 75.6) == (MAX_ATTEMPTS, round(sum(DELAYS) / HOUR, 1))


@given(st.integers(1, MAX_ATTEMPTS - 1), st.floats(-1, 1), st.none() | st.floats(0, 1e9))
def test_jitter_stays_within_a_fifth(attempt: int, spread: float, retry_after: float | None) -> None:
    """Jitter moves a delay by at most a fifth, and never before the time that the receiver asked for."""
    decision = decide(Replied(503, retry_after), attempt=attempt, age=0, spread=spread)
    assert isinstance(decision, RetryAt)
    plain = DELAYS[attempt - 1]
    asked = min(retry_after or 0.0, MAX_RETRY_AFTER)
    assert max(0.8 * plain, asked) - 1e-6 <= decision.delay <= max(1.2 * plain, 1.1 * asked) + 1e-6
    assert decision.charged


@given(st.sampled_from([Replied(500), TIMEOUT, OURS]), st.floats(-1, 1))
def test_every_message_ends(result: Result, spread: float) -> None:
    """A message that always meets the same fault is given up within a bounded time, whoever's fault it is."""
    attempt, age, steps = 1, 0.0, 0
    while isinstance(decision := decide(result, attempt=attempt, age=age, spread=spread), RetryAt):
        attempt += decision.charged
        age += decision.delay
        steps += 1
        assert steps < 1000
    assert isinstance(decision, Dead)
    assert age <= 8 * 24 * HOUR


@pytest.mark.parametrize(
    ("error", "expected", "word"),
    [
        (CallFailed("slow", field="timeout"), Failed("timeout", "slow"), "timeout"),
        (Unavailable("mute", field="dns"), OurFault("dns", "mute"), "ours:dns"),
        (BlockedTarget("no"), Impossible("blocked_target", "no"), "blocked_target"),
        (BadInput("bad", field="headers"), Impossible("headers", "bad"), "headers"),
    ],
)
def test_errors_of_the_door(error: PenstockError, expected: Result, word: str) -> None:
    """Each error of the door is told apart: theirs, ours, or hopeless."""
    result = schedule.result_of(error)
    assert (expected, word) == (result, schedule.error_class(result))


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        ("0", 0.0),
        ("9" * 400, MAX_RETRY_AFTER),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("\u0661\u0662", None),
        ("Mon, 23 Nov 2026 12:01:00 GMT", 60.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("Mon, 99 Nov 2026 11:00:00 GMT", None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    """Retry-After is read as seconds or as a date; nonsense is as good as nothing."""
    assert seconds == schedule.retry_after_seconds(text, NOW)


@pytest.mark.parametrize(
    ("text", "delays"),
    [("5", (5.0,)), ("0.5, 2,3", (0.5, 2.0, 3.0)), (",".join(f"{one:.0f}" for one in DELAYS), DELAYS)],
)
def test_the_schedule_can_be_set(text: str, delays: tuple[float, ...]) -> None:
    """The operator's delays are read as they stand; the default is ours."""
    assert delays == schedule.parse_delays(text)
    assert isinstance(decide(Replied(500), attempt=len(delays), age=0, spread=0, delays=delays), RetryAt)
    assert isinstance(decide(Replied(500), attempt=len(delays) + 1, age=0, spread=0, delays=delays), Dead)


@pytest.mark.parametrize("text", ["", "soon", "5,,3", "-1", "nan", "inf", "1e9"])
def test_a_schedule_that_cannot_be_read(text: str) -> None:
    """What is not a list of seconds stops the process and names the setting."""
    with pytest.raises(Misconfigured) as caught:
        schedule.parse_delays(text)
    assert "PENSTOCK_WEBHOOK_DELAYS" == caught.value.field


def test_success_has_no_error_class() -> None:
    """Only failures have a word in the log of attempts."""
    assert [None, "status", "status"] == [schedule.error_class(Replied(status)) for status in (204, 302, 500)]

"""What an error means for the work that raised it."""

from __future__ import annotations

import pytest

from schemas.errors import BadInput, BudgetExceeded, CallFailed, LeaseLost, RateLimited, Unavailable
from workers.engine.policy import Policy, decide
from workers.engine.types import Bury, Done, GiveBack, RetryAt, Verdict

POLICY = Policy(max_attempts=3, base=2.0, cap=10.0, floor=0.5, wait=7.0, max_wait=60.0, max_age=100.0)


@pytest.mark.parametrize(
    ("error", "attempt", "age", "jitter", "expected"),
    [
        (None, 1, 0.0, 0.5, Done()),
        # Retryable is charged and backs off: jitter * base * 2 ** (attempt - 1), between floor and cap.
        (Unavailable(), 1, 0.0, 1.0, RetryAt(2.0)),
        (Unavailable(), 2, 0.0, 1.0, RetryAt(4.0)),
        (Unavailable(), 2, 0.0, 0.5, RetryAt(2.0)),
        (Unavailable(), 1, 0.0, 0.0, RetryAt(0.5)),
        (CallFailed(retry_after=9.0), 1, 0.0, 0.0, RetryAt(9.0)),
        (CallFailed(retry_after=900.0), 1, 0.0, 0.0, RetryAt(60.0)),
        (Unavailable("down"), 3, 0.0, 0.5, Bury("unavailable", "down")),
        (Unavailable("down"), 1, 100.0, 0.5, Bury("unavailable", "down")),
        # Foreign exceptions are treated alike, and their text is not kept.
        (ValueError("text of a document"), 1, 0.0, 1.0, RetryAt(2.0)),
        (ValueError("text of a document"), 3, 0.0, 1.0, Bury("ValueError", "")),
        # Uncharged work waits as long as it is told, however often.
        (RateLimited(retry_after=3.0), 99, 9e9, 0.5, GiveBack(3.0)),
        (RateLimited(), 1, 0.0, 0.5, GiveBack(7.0)),
        (BudgetExceeded(retry_after=4000.0), 1, 0.0, 0.5, GiveBack(60.0)),
        (LeaseLost(), 1, 0.0, 0.5, GiveBack(7.0)),
        # Permanent is buried at once.
        (BadInput("no title"), 1, 0.0, 0.5, Bury("bad_input", "no title")),
    ],
)
def test_each_branch_of_the_error_tree_has_its_verdict(
    error: BaseException | None, attempt: int, age: float, jitter: float, expected: Verdict
) -> None:
    """The verdict follows from the error's branch, the attempt and the age."""
    assert expected == decide(error, attempt, age, jitter=jitter, policy=POLICY)


def test_back_off_is_capped() -> None:
    """A late attempt waits no longer than the cap, and its exponent does not overflow."""
    patient = Policy(max_attempts=10_000, cap=10.0)
    assert RetryAt(10.0) == decide(Unavailable(), 5000, 0.0, jitter=1.0, policy=patient)

from dataclasses import replace

import pytest

from infra.training_trigger import (
    Counts,
    Dataset,
    Shortage,
    distance,
    fair_cap,
    find_shortage,
    may_fire,
    reached_threshold,
)

FAQ = Dataset(
    tenant_id="t",
    name="faq",
    alias="chat",
    base_model="m",
    threshold=100,
    minimum=10,
    holdout_minimum=25,
    approval="manual",
    max_age_hours=None,
    cooldown_seconds=0.0,
    max_failures=3,
    margin=0.01,
    epochs=None,
    failures=0,
    not_before=None,
    trigger_at=None,
    age_check_at=None,
    countdown=0,
    screening="quarantine",
    near_duplicate=None,
    key_share=1.0,
    budget_month=None,
    collections=(),
)
ENOUGH = Counts(free=100, train=10, holdout=25, running=False)


@pytest.mark.parametrize(
    ("dataset", "counts", "may", "reached"),
    [
        (FAQ, ENOUGH, True, True),
        (FAQ, replace(ENOUGH, free=99), True, False),
        (FAQ, replace(ENOUGH, free=0), False, False),
        (FAQ, replace(ENOUGH, train=9), False, False),
        (FAQ, replace(ENOUGH, holdout=24), False, False),
        (FAQ, replace(ENOUGH, running=True), False, False),
        (replace(FAQ, failures=2), ENOUGH, True, True),
        (replace(FAQ, failures=3), ENOUGH, False, False),
    ],
)
def test_a_run_starts_by_itself_only_when_it_could_be_judged(
    dataset: Dataset, counts: Counts, *, may: bool, reached: bool
) -> None:
    """Enough new examples, enough to train on and to hold out, no run under way, not too many failures."""
    assert (may, reached) == (may_fire(dataset, counts), reached_threshold(dataset, counts))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (ENOUGH, None),
        (replace(ENOUGH, train=3), Shortage("train examples", 3, 10)),
        (replace(ENOUGH, holdout=7), Shortage("holdout examples", 7, 25)),
        (replace(ENOUGH, free=0), None),
    ],
)
def test_a_shortage_says_what_is_there_and_what_is_needed(counts: Counts, expected: Shortage | None) -> None:
    """Old examples count for it as well as new ones."""
    assert expected == find_shortage(FAQ, counts)


@pytest.mark.parametrize(
    ("dataset", "counts", "expected"),
    [
        (FAQ, Counts(0, 0, 0, running=False), 100),
        (FAQ, Counts(60, 10, 25, running=False), 40),
        (FAQ, Counts(100, 10, 20, running=False), 5),
        (FAQ, Counts(100, 2, 20, running=False), 8),
        (FAQ, Counts(100, 10, 25, running=True), 100),
        (FAQ, ENOUGH, 1),
        (replace(FAQ, max_age_hours=1.0), Counts(60, 10, 25, running=False), 1),
        (replace(FAQ, max_age_hours=1.0), Counts(60, 10, 20, running=False), 5),
        (replace(FAQ, key_share=0.25), Counts(60, 10, 25, running=False), 10),
    ],
)
def test_nothing_is_counted_before_it_could_matter(dataset: Dataset, counts: Counts, expected: int) -> None:
    """The distance is never longer than what may be missing, so that no trigger is overlooked."""
    assert expected == distance(dataset, counts)


@pytest.mark.parametrize(
    ("given", "share", "cap"),
    [
        ([], 0.5, 0),
        ([100], 0.5, 0),
        ([100], 1.0, 100),
        ([100, 1], 0.5, 1),
        ([100, 40], 0.5, 40),
        ([100, 40, 10], 0.5, 50),
        ([50, 50, 50], 0.34, 50),
        ([50, 50, 50], 0.3, 0),
        ([1000, 30, 30, 30], 0.4, 60),
    ],
)
def test_no_supplier_gives_more_than_its_share(given: list[int], share: float, cap: int) -> None:
    """The largest cap at which nobody's part of the batch is above the share; one supplier alone cannot keep to less than all."""
    assert cap == fair_cap(given, share)
    assert cap <= share * sum(min(one, cap) for one in given) + 1e-9
    assert all(
        more > share * sum(min(one, more) for one in given)
        for more in range(cap + 1, max(given, default=0) + 1)
    )

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from infra.budget_rules import (
    RESERVED_WAIT,
    Limits,
    Spent,
    find_excess,
    seconds_to_next_day,
    seconds_to_next_month,
)
from infra.prices import BUILT_IN, Prices, load_prices, names
from schemas.errors import Misconfigured

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY_LEFT = 12 * 3600.0
MONTH_LEFT = (7 * 24 + 12) * 3600.0


@pytest.mark.parametrize(
    ("limits", "spent", "cost", "wait"),
    [
        (Limits(None, None), Spent(10**12, 10**12, 10**12), 10**9, None),
        (Limits(1.0, None), Spent(0, 0, 0), 1_000_000, None),
        (Limits(1.0, None), Spent(0, 0, 0), 1_000_001, DAY_LEFT),
        (Limits(1.0, None), Spent(999_999, 5_000_000, 0), 1, None),
        (Limits(1.0, None), Spent(1_000_000, 5_000_000, 0), 1, DAY_LEFT),
        (Limits(None, 2.0), Spent(0, 2_000_000, 0), 1, MONTH_LEFT),
        (Limits(1.0, 2.0), Spent(1_000_000, 2_000_000, 0), 1, MONTH_LEFT),
        (Limits(1.0, 2.0), Spent(1_000_000, 1_000_000, 0), 1, DAY_LEFT),
        (Limits(1.0, None), Spent(500_000, 500_000, 500_000), 1, RESERVED_WAIT),
        (Limits(0.0, None), Spent(0, 0, 0), 1, DAY_LEFT),
    ],
)
def test_a_call_fits_or_waits_for_the_period_that_is_used_up(
    limits: Limits, spent: Spent, cost: int, wait: float | None
) -> None:
    """Spent and promised money count; only promises in the way mean a short wait, a used-up month a long one."""
    excess = find_excess(limits, spent, cost, NOON)
    assert wait == (None if excess is None else excess.retry_after)


def test_the_excess_names_the_limit_and_the_sums() -> None:
    """Who is over budget sees which limit it was, what was spent, and what the call would have cost."""
    excess = find_excess(Limits(1.0, None), Spent(900_000, 900_000, 50_000), 100_000, NOON)
    assert excess is not None
    assert excess.field == "budget_day"
    assert "0.100000 USD" in excess.message
    assert "0.900000 of 1.000000 USD" in excess.message


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), 1.0, 1.0),
        (datetime(2028, 2, 29, 0, 0, tzinfo=UTC), 86_400.0, 86_400.0),
        (datetime(2026, 1, 31, 12, 0, tzinfo=UTC), 43_200.0, 43_200.0),
        (datetime(2026, 1, 1, 0, 0, tzinfo=UTC), 86_400.0, 31 * 86_400.0),
    ],
)
def test_periods_end_at_utc_midnight(now: datetime, day: float, month: float) -> None:
    """Leap days and year ends are no exception."""
    assert (day, month) == (seconds_to_next_day(now), seconds_to_next_month(now))


def test_built_in_prices_are_dated_and_cover_the_default_models() -> None:
    """A fresh installation knows what its default models cost."""
    prices = load_prices()
    assert prices.dated >= date(2026, 11, 1)
    assert prices.micros("chat", "gpt-6-luna", 1_000_000, 1_000_000) == pytest.approx(600_000)
    assert prices.micros("embed", "text-embedding-3-small", 1_000_000) == pytest.approx(20_000)
    assert prices.micros("train", "gpt-4.1-mini-2025-04-14", 1_000_000) == pytest.approx(5_000_000)


def test_tuned_and_dated_names_fall_back() -> None:
    """A tuned model costs what tuned models of its base cost, and a dated name what its undated one does."""
    assert names("ft:gpt-4.1-mini-2025-04-14:org:suffix:id") == [
        "ft:gpt-4.1-mini-2025-04-14:org:suffix:id",
        "ft:gpt-4.1-mini-2025-04-14",
        "ft:gpt-4.1-mini",
        "gpt-4.1-mini-2025-04-14",
        "gpt-4.1-mini",
    ]
    prices = load_prices()
    assert prices.micros("chat", "ft:gpt-4.1-mini-2025-04-14:o:s:i", 1_000_000) == pytest.approx(800_000)


def test_an_unknown_model_is_free_and_warned_about_once() -> None:
    """A missing price stops nobody, and does not fill the log."""
    prices = load_prices()
    with capture_logs() as logs:
        assert prices.micros("chat", "somebody-elses-model", 1000, 1000) == 0
        assert prices.micros("chat", "somebody-elses-model", 1000, 1000) == 0
    assert [("budget.price_unknown", "somebody-elses-model")] == [
        (line["event"], line["model"]) for line in logs
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"date": "2026-11-23"}',
        '{"date": "x", "currency": "USD", "per_tokens": 1000000, "models": {}}',
    ],
)
def test_a_broken_price_file_names_the_setting(tmp_path: Path, content: str) -> None:
    """An operator is told which setting to mend."""
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(Misconfigured) as caught:
        load_prices(path)
    assert caught.value.field == "PENSTOCK_PRICES"


def test_prices_of_ones_own_replace_the_built_in_ones(tmp_path: Path) -> None:
    """`PENSTOCK_PRICES` points to a file of the same format."""
    own = {**json.loads(BUILT_IN.read_text()), "models": {"mine": {"in": 1.0, "out": 2.0, "train": 3.0}}}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(own))
    prices: Prices = load_prices(path)
    assert {"mine"} == set(prices.models)
    assert prices.micros("judge", "mine", 10, 10) == pytest.approx(30.0)

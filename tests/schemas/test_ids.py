from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import new_event_id, uuid7, uuid7_bytes, uuid7_floor, uuid7_time

MILLISECONDS = st.integers(min_value=0, max_value=4_000_000_000_000)


@given(earlier=MILLISECONDS, later=MILLISECONDS)
def test_ids_sort_by_the_time_of_their_minting(earlier: int, later: int) -> None:
    """A later millisecond is a greater id, so that partitions follow time."""
    assert (earlier < later) == (uuid7(earlier) < uuid7(later)) or earlier == later


@given(at_ms=MILLISECONDS)
def test_an_id_is_a_uuid7_that_knows_its_time(at_ms: int) -> None:
    """Version 7, the RFC's variant, and the time to the millisecond."""
    minted = uuid7(at_ms)
    assert (7, "specified in RFC 4122") == (minted.version, minted.variant)
    assert datetime.fromtimestamp(at_ms / 1000, UTC) == uuid7_time(minted)


@given(at_ms=MILLISECONDS)
def test_the_floor_of_a_moment_is_below_its_ids_and_above_all_earlier_ones(at_ms: int) -> None:
    """The bound of a partition parts yesterday's ids from today's."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    assert uuid7_floor(at) <= uuid7(at_ms)
    assert at_ms == 0 or uuid7(at_ms - 1) < uuid7_floor(at)


@given(at_ms=MILLISECONDS, step=st.integers(min_value=0, max_value=4094))
def test_ids_within_a_millisecond_keep_their_order(at_ms: int, step: int) -> None:
    """A 4096th of a millisecond later is a greater id, so that what one process mints is listed by age."""
    at_ms %= 2**33  # larger ones have no 4096ths as floats
    assert uuid7(at_ms + step / 4096 + 1 / 8192) < uuid7(at_ms + (step + 1) / 4096 + 1 / 8192)


def test_ids_of_one_moment_differ() -> None:
    """62 random bits keep producers apart."""
    assert 1000 == len({uuid7(0) for _ in range(1000)})


def test_an_event_id_is_of_now() -> None:
    """The ledger's ids carry the time of acceptance."""
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    assert before <= uuid7_time(new_event_id()) <= datetime.now(UTC)


def test_ids_minted_together_keep_their_order() -> None:
    """A thousand at once are a thousand UUIDv7, each greater than the one before."""
    minted = [UUID(bytes=one) for one in uuid7_bytes(1000)]
    assert minted == sorted(set(minted))
    assert {(7, "specified in RFC 4122")} == {(one.version, one.variant) for one in minted}

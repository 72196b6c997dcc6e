"""Names for the ids that pass through Penstock, and the mint of time-ordered ones."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import NewType
from uuid import UUID

TenantId = NewType("TenantId", str)
"""A tenant's slug: ``[a-z0-9][a-z0-9_-]{0,62}``. No comma can occur, which row-level security relies on."""

EventId = NewType("EventId", UUID)
"""The server's own id of an event: a UUIDv7, so that ledger partitions follow time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TENANT_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,126}$"
"""Collections, datasets, templates and model aliases."""


def uuid7(at_ms: float | None = None) -> UUID:
    """Mint a UUIDv7 (RFC 9562 §5.7, with method 3 of §6.2): Unix time in milliseconds, its fraction in 4096ths, 62 random bits.

    The fraction keeps ids that one process mints one after another in their order: a listing by id is by age.

    Args:
        at_ms: Unix time in milliseconds; now unless given (partition bounds are computed with it).
    """
    nanoseconds = time.time_ns() if at_ms is None else round(at_ms * 1_000_000)
    return UUID(bytes=_uuid7_bytes(nanoseconds * 4096 // 1_000_000, os.urandom(8)))


def uuid7_bytes(count: int) -> list[bytes]:
    """Mint so many UUIDv7 at once, as bytes: each is greater than the one before it."""
    random = os.urandom(8 * count)
    # One clock reading: 4096ths of a millisecond follow, which is as long as minting one takes.
    first = time.time_ns() * 4096 // 1_000_000
    return [_uuid7_bytes(first + place, random[8 * place : 8 * place + 8]) for place in range(count)]


def _uuid7_bytes(units: int, random: bytes) -> bytes:
    """A UUIDv7 of a moment, in 4096ths of a millisecond since 1970."""
    value = (units >> 12 & 0xFFFF_FFFF_FFFF) << 80 | 0x7000 << 64 | (units & 0xFFF) << 64
    return (value | 0b10 << 62 | int.from_bytes(random, "big") & 0x3FFF_FFFF_FFFF_FFFF).to_bytes(16, "big")


def uuid7_floor(at: datetime) -> UUID:
    """The smallest UUID whose time is ``at``: a lower bound for partitions and windows."""
    # By integers: a float's 1.001 s is 1000 ms, which is the millisecond before.
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=(milliseconds & 0xFFFF_FFFF_FFFF) << 80)


def uuid7_time(value: UUID) -> datetime:
    """The moment at which a UUIDv7 was minted, to the millisecond."""
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC)


def new_event_id() -> EventId:
    """Mint the id under which the ledger will keep an event."""
    return EventId(uuid7())

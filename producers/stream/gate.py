"""A batch of entries is sifted here before it is entered: what is no event, what passes a limit, what has to wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.letters import Letter
from infra.limits import Limit, TenantLimits
from producers.stream.entry import read_entry
from schemas.envelope import SUPPLIER, SUPPLYING, Event
from schemas.errors import LimitReached, PenstockError

Entry = tuple[bytes, Mapping[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Sifted:
    """A batch, taken apart.

    Attributes:
        good: to be entered.
        refused: for the dead letters.
        waiting: questions beyond the number that may be in flight; answers make room for them.
    """

    good: list[tuple[Entry, Event]] = field(default_factory=list)
    refused: list[Letter] = field(default_factory=list)
    waiting: list[Entry] = field(default_factory=list)


async def sift(
    entries: Sequence[Entry], stream: str, tenant: str, limits: TenantLimits, allowed: Mapping[str, Any]
) -> Sifted:
    """Read a batch and hold it against the tenant's limits, as the gateway does.

    Args:
        entries: as Redis gave them.
        stream: noted as the supplier of examples, of which a dataset takes so many from each.
        tenant: whose.
        limits: counts what the tenant has.
        allowed: what it may have; without limits nothing is counted.
    """
    sifted = Sifted()
    for entry in entries:
        read = read_entry(entry[1])
        if isinstance(read, Event):
            if read.type in SUPPLYING:
                read.extensions[SUPPLIER] = f"stream:{stream}"
            sifted.good.append((entry, read))
        else:
            sifted.refused.append(letter_of(entry, read))
    if allowed:
        over = await limits.refuse(tenant, allowed, [event for _, event in sifted.good])
        _take_out(sifted, over)
    return sifted


def letter_of(entry: Entry, error: PenstockError) -> Letter:
    """What becomes of an entry that was refused."""
    return Letter(entry[0].decode(), entry[1], error)


def _take_out(sifted: Sifted, over: Mapping[int, LimitReached]) -> None:
    for place, error in over.items():
        entry = sifted.good[place][0]
        if error.field == Limit.QUERIES:
            sifted.waiting.append(entry)
        else:
            sifted.refused.append(letter_of(entry, error))
    sifted.good[:] = [one for place, one in enumerate(sifted.good) if place not in over]

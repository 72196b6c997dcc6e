"""What calls cost is added up here, and written as one row per tenant, day, purpose and model, and one per document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias
from uuid import UUID

from infra.database import Connection, queries
from infra.prices import Purpose

Account: TypeAlias = tuple[str, Purpose, str]
"""Tenant, purpose, model."""


class Home(NamedTuple):
    """A document, by where it is kept."""

    tenant_id: str
    collection_id: int
    document_id: str


@dataclass(slots=True)
class Total:
    """What an account has used: calls, tokens, micro-dollars, and how many of these bought nothing."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    wasted: float = 0.0

    def add(self, other: Total) -> None:
        """Add another total to this one."""
        self.calls += other.calls
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out
        self.cost += other.cost
        self.wasted += other.wasted


class Book:
    """Totals and settled promises that are not written yet."""

    def __init__(self) -> None:
        """Start empty."""
        self._totals: dict[Account, Total] = {}
        self._documents: dict[Home, Total] = {}
        self._settled: list[tuple[str, UUID]] = []

    def __bool__(self) -> bool:
        return bool(self._totals or self._settled)

    def add(
        self, account: Account, total: Total, documents: Mapping[Home, float] = MappingProxyType({})
    ) -> None:
        """Add to an account, and to the documents that had a share of it."""
        self._totals.setdefault(account, Total()).add(total)
        for home, share in documents.items():
            part = Total(tokens_in=round(total.tokens_in * share), cost=total.cost * share)
            self._documents.setdefault(home, Total()).add(part)

    def release(self, tenant_id: str, reservation_id: UUID) -> None:
        """A promise is settled; its row goes when the book is written."""
        self._settled.append((tenant_id, reservation_id))

    def merge(self, other: Book) -> None:
        """Take over what another book holds."""
        for account, total in other._totals.items():
            self.add(account, total)
        for home, total in other._documents.items():
            self._documents.setdefault(home, Total()).add(total)
        self._settled.extend(other._settled)

    def tenants(self) -> list[str]:
        """Whose rows would be written."""
        return sorted({account[0] for account in self._totals} | {tenant for tenant, _ in self._settled})

    async def write(self, connection: Connection) -> None:
        """Write everything on a transaction that acts for `tenants`."""
        sql = queries("budget")
        if self._totals:
            rows = [
                (*account, t.calls, t.tokens_in, t.tokens_out, math.ceil(t.cost), math.ceil(t.wasted))
                for account, t in self._totals.items()
            ]
            await connection.execute(sql.book, *(list(column) for column in zip(*rows, strict=True)))
        if self._documents:
            spent = [(*home, t.tokens_in, t.cost) for home, t in sorted(self._documents.items())]
            await connection.execute(
                sql.book_documents, *(list(column) for column in zip(*spent, strict=True))
            )
        if self._settled:
            tenants, ids = zip(*self._settled, strict=True)
            await connection.execute(sql.release, list(tenants), list(ids))

"""The one door before every paid call: money is reserved here, then settled into the table `usage`.

A tenant without a limit never waits: its limits are remembered, nothing is written before the call, and what the call
cost is booked later, many calls together. A tenant with a limit reserves in the database, under a lock of its own and
in groups, so that no number of processes can promise more than the limit. What a crash leaves reserved expires and
counts as waste.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Self
from uuid import UUID

import structlog

from infra.budget_book import Account, Book, Home, Total
from infra.budget_promises import Ask, Reservation, promise_on
from infra.budget_rules import Limits
from infra.coalesce import Coalescer
from infra.database import Connection, Database, queries
from infra.prices import Prices, Purpose
from schemas.errors import PenstockError
from schemas.ids import uuid7

__all__ = ["LIFETIME", "Budget", "Reservation"]

LIFETIME = 900.0
"""Seconds after which an unsettled reservation counts as waste: longer than any single call may take."""
_REMEMBER = 30.0
_MANY_TENANTS = 10_000
_log = structlog.get_logger("penstock.budget")


class Budget:
    """Reserves before a paid call and books after it, per tenant."""

    def __init__(
        self,
        database: Database,
        prices: Prices,
        day_limit: float | None,
        month_limit: float | None,
        *,
        linger: float = 0.5,
    ) -> None:
        """Prepare; nothing runs before the first call. Close it, so that the last calls are booked.

        Args:
            database: acts as ``penstock_worker`` or ``penstock_gateway``.
            prices: what models cost.
            day_limit: US dollars per tenant and UTC day, where its own limits say nothing; None is unlimited.
            month_limit: the same per UTC month.
            linger: seconds for which settled calls are gathered before they are booked together.
        """
        self.prices = prices
        self._database = database
        self._default = Limits(day_limit, month_limit)
        self._linger = linger
        self._limits: dict[str, tuple[float, Limits]] = {}
        self._find_limits: Coalescer[str, Limits] = Coalescer(self._load_limits, limit=500)
        self._promise: Coalescer[Ask, Reservation] = Coalescer(self._promise_many, limit=500)
        self._book = Book()
        self._closing = asyncio.Event()
        self._booking = asyncio.Lock()
        self._booker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def reserve(
        self,
        tenant_id: str,
        purpose: Purpose,
        model: str,
        tokens_in: int,
        tokens_out: int = 0,
        *,
        key: UUID | None = None,
        lifetime: float = LIFETIME,
    ) -> Reservation:
        """Promise money for a call. For training, `tokens_in` is tokens times epochs.

        Args:
            tenant_id: who pays.
            purpose: what the call is for.
            model: the model that is called; decides the price.
            tokens_in: tokens that will be sent, estimated.
            tokens_out: tokens that will come back, at most.
            key: names the promise, so that asking again after a crash does not promise twice.
            lifetime: seconds after which an unsettled promise counts as waste.

        Raises:
            BudgetExceeded: with the sums, and with the seconds until it may fit.
        """
        cost = self.prices.micros(purpose, model, tokens_in, tokens_out)
        reservation = Reservation(tenant_id, purpose, model, tokens_in, tokens_out, cost)
        limits = await self.limits(tenant_id)
        if limits.unlimited or cost == 0:
            return reservation
        return await self._promise(Ask(reservation, key or uuid7(), limits, lifetime))

    async def reserve_on(
        self,
        connection: Connection,
        tenant_id: str,
        purpose: Purpose,
        model: str,
        tokens_in: int,
        *,
        key: UUID,
        lifetime: float = LIFETIME,
    ) -> Reservation:
        """Promise money within an effect's transaction: it is promised if, and only if, the effect is committed.

        Other promises of the tenant wait until then.

        Raises:
            BudgetExceeded: nothing was written; the transaction goes on.
        """
        cost = self.prices.micros(purpose, model, tokens_in)
        reservation = Reservation(tenant_id, purpose, model, tokens_in, 0, cost)
        # Read on this connection: an effect that waits for a second one can starve the pool.
        [limits] = await self._read_limits(connection, [tenant_id])
        if limits.unlimited or cost == 0:
            return reservation
        [result] = await promise_on(connection, [Ask(reservation, key, limits, lifetime)])
        if isinstance(result, BaseException):
            raise result
        return result

    async def settle(
        self,
        reservation: Reservation,
        tokens_in: int,
        tokens_out: int = 0,
        *,
        documents: Mapping[Home, float] = MappingProxyType({}),
    ) -> None:
        """Book what the call really used. Returns at once; the row is written with others soon.

        Args:
            reservation: what was promised.
            tokens_in: tokens that were sent.
            tokens_out: tokens that came back.
            documents: what it was for, with shares that add up to 1.
        """
        cost = self.prices.micros(reservation.purpose, reservation.model, tokens_in, tokens_out)
        self._enter(reservation, Total(1, tokens_in, tokens_out, cost), documents)

    async def waste(
        self, reservation: Reservation, documents: Mapping[Home, float] = MappingProxyType({})
    ) -> None:
        """Book a call that was, or may have been, paid and whose result is lost."""
        lost = reservation.cost
        total = Total(1, reservation.tokens_in, reservation.tokens_out, lost, lost)
        self._enter(reservation, total, documents)

    async def release(self, reservation: Reservation) -> None:
        """Give back a promise that cost nothing, such as that of a call which was refused."""
        if reservation.reservation_id is not None:
            self._book.release(reservation.tenant_id, reservation.reservation_id)
            self._wake()

    async def settle_on(
        self, connection: Connection, reservation: Reservation, tokens_in: int, tokens_out: int = 0
    ) -> None:
        """Book within an effect's transaction: exactly once, for sums too large to be booked in passing."""
        cost = self.prices.micros(reservation.purpose, reservation.model, tokens_in, tokens_out)
        book = Book()
        book.add(_account(reservation), Total(1, tokens_in, tokens_out, cost))
        await book.write(connection)
        await self.release_on(connection, reservation)

    async def release_on(self, connection: Connection, reservation: Reservation) -> None:
        """Give back a promise within an effect's transaction."""
        if reservation.reservation_id is not None:
            await connection.execute(
                queries("budget").release, [reservation.tenant_id], [reservation.reservation_id]
            )

    async def limits(self, tenant_id: str) -> Limits:
        """A tenant's limits, at most 30 seconds old."""
        known = self._limits.get(tenant_id)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        return await self._find_limits(tenant_id)

    async def flush(self) -> None:
        """Book now what was settled.

        Raises:
            Unavailable: the database is away; nothing is lost, the sums are kept.
        """
        async with self._booking:  # whoever flushes waits for what is being booked already
            book, self._book = self._book, Book()
            if not book:
                return
            try:
                async with self._database.transaction(*book.tenants()) as connection:
                    await book.write(connection)
            except BaseException:
                self._book.merge(book)
                raise

    async def aclose(self) -> None:
        """Book the last calls.

        Raises:
            Unavailable: the database is away; the last calls are not booked.
        """
        self._closing.set()
        if self._booker is not None:
            await asyncio.wait([self._booker])
        await self.flush()

    def _enter(self, reservation: Reservation, total: Total, documents: Mapping[Home, float]) -> None:
        self._book.add(_account(reservation), total, documents)
        if reservation.reservation_id is not None:
            self._book.release(reservation.tenant_id, reservation.reservation_id)
        self._wake()

    def _wake(self) -> None:
        if self._booker is None or self._booker.done():
            self._booker = asyncio.create_task(self._book_soon())

    async def _book_soon(self) -> None:
        wait = self._linger
        while self._book and not self._closing.is_set():
            with suppress(TimeoutError):
                # An event rather than a sleep: closing must not cut a booking that is being committed.
                await asyncio.wait_for(self._closing.wait(), wait)
            try:
                await self.flush()
            except PenstockError as error:
                wait = min(60.0, max(wait * 2, 0.1))
                _log.warning("budget.booking_delayed", error=error.code, retry_in=wait)

    async def _load_limits(self, tenants: Sequence[str]) -> list[Limits | BaseException]:
        async with self._database.transaction(*sorted(set(tenants)), readonly=True) as connection:
            found = await self._read_limits(connection, tenants)
        if len(self._limits) > _MANY_TENANTS:
            self._limits.clear()
        until = time.monotonic() + _REMEMBER
        self._limits.update({tenant: (until, own) for tenant, own in zip(tenants, found, strict=True)})
        return list(found)

    async def _read_limits(self, connection: Connection, tenants: Sequence[str]) -> list[Limits]:
        rows = await connection.fetch(queries("budget").limits, list(set(tenants)))
        own = {
            row["tenant_id"]: Limits(
                row["day"] if row["has_day"] else self._default.day,
                row["month"] if row["has_month"] else self._default.month,
            )
            for row in rows
        }
        return [own.get(tenant, self._default) for tenant in tenants]

    async def _promise_many(self, asks: Sequence[Ask]) -> list[Reservation | BaseException]:
        async with self._database.transaction(
            *sorted({ask.reservation.tenant_id for ask in asks})
        ) as connection:
            return await promise_on(connection, asks)


def _account(reservation: Reservation) -> Account:
    return reservation.tenant_id, reservation.purpose, reservation.model

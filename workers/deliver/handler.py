"""The event `delivery.due` passes through here: one attempt at one message, and the outcome that the runtime commits.

May we send? -> sign -> send -> decide -> record. What is decided comes back as `Done`, as `Later` (the next attempt
has its time in the ledger), or as `GaveUp`, which buries the event together with the delivery.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import structlog

from infra.database import Connection, queries
from infra.egress import Egress
from infra.sealed_headers import open_headers
from infra.secretbox import SecretBox
from infra.signing_secrets import open_secrets
from schemas.errors import Misconfigured, PenstockError, Permanent
from schemas.internal import DeliveryDue
from schemas.registry import read_data
from schemas.states import DeliveryState, EndpointState, sources
from schemas.work import Publication, Work
from workers.deliver.due import Due, Loader
from workers.deliver.gates import Gate, Gates, Shut
from workers.deliver.rate import LONGEST, Rates
from workers.deliver.record import GaveUp, Record, disable, write_all
from workers.deliver.schedule import (
    Dead,
    Delivered,
    Disable,
    Impossible,
    OurFault,
    RetryAt,
    decide,
    described,
    error_class,
)
from workers.deliver.send import Attempt, send
from workers.handling import Done, Later, Outcome, Shared

_log = structlog.get_logger("penstock.deliver")


@dataclass(frozen=True, slots=True)
class Deliverer:
    """The handler and what it needs."""

    loader: Loader
    egress: Egress
    box: SecretBox
    gates: Gates
    rates: Rates
    delays: Sequence[float]

    async def handle(self, work: Work) -> Outcome:
        """Make one attempt.

        Raises:
            GaveUp: the message is given up; `on_dead` writes what is known.
            NotFound: the delivery or its endpoint was deleted.
        """
        known = self.gates.known(work.subject)
        if known is not None and known.is_shut():
            # The subject names the endpoint: a backlog that has to wait is not even loaded.
            return Later(known.turned_away())
        due = await self.loader.load(work.tenant_id, delivery_id_of(work))
        if due.is_over:
            return Done()
        if (trace := work.attributes.get("traceparent")) is not None:
            due = replace(due, traceparent=trace)
        if due.endpoint_status is EndpointState.DISABLED:
            reason = "the endpoint is disabled"
            raise GaveUp(reason, Record(due, None, Dead(reason)))
        gate = self.gates.of(due.endpoint_id)
        if due.throttled_for:
            gate.spare(due.throttled_for)
        try:
            await gate.enter()
            attempt, pause = await self._through(gate, due)
        except Shut as shut:
            return Later(shut.delay)
        return self._decided(work, due, attempt, pause)

    async def _through(self, gate: Gate, due: Due) -> tuple[Attempt, float | None]:
        """Wait for the endpoint's rate, make the attempt, and give the place back whatever happens."""
        heard: Attempt | None = None
        pause: float | None = None
        try:
            if due.rate_limit is not None:
                wait = await self.rates.wait(due.endpoint_id, due.rate_limit)
                if wait > LONGEST:
                    raise Shut(gate.turned_away(1 / due.rate_limit))
                await asyncio.sleep(wait)
            attempt = await self._attempt(due)
            if not isinstance(attempt.result, OurFault | Impossible):
                heard = attempt
        finally:
            if heard is None:
                gate.leave(None)
            else:
                pause = gate.leave(heard.result, heard.elapsed_ms / 1000)
        return attempt, pause

    async def _attempt(self, due: Due) -> Attempt:
        """Sign and send; a secret that does not open is our fault, and the message waits for an operator."""
        now = datetime.now(UTC)
        tenant, endpoint = due.tenant_id, str(due.endpoint_id)
        try:
            keys = open_secrets(self.box, due.secrets, tenant=tenant, endpoint=endpoint, now=now)
            headers = open_headers(self.box, due.headers, tenant=tenant, endpoint=endpoint)
        except (Misconfigured, Permanent) as error:
            _log.error(
                "deliver.secret_not_opened",
                endpoint=endpoint,
                error=error.message,
                next_step=error.fix,
            )
            return Attempt(OurFault(error.field or error.code, error.message), 0.0, None, now)
        return await send(self.egress, due, headers, keys)

    def _decided(self, work: Work, due: Due, attempt: Attempt, pause: float | None) -> Outcome:
        now = datetime.now(UTC)
        # The event's age, not the message's: a replay is a new event, and has all its patience again.
        age = (now - work.accepted_at).total_seconds()
        failing_for = 0.0 if due.failing_since is None else (now - due.failing_since).total_seconds()
        decision = decide(
            attempt.result,
            attempt=due.attempts + 1,
            age=age,
            spread=random.uniform(-1, 1),  # noqa: S311 - jitter
            failing_for=failing_for,
            delays=self.delays,
        )
        record = Record(due, attempt, decision, pause)
        # They join the runtime's one line per attempt.
        structlog.contextvars.bind_contextvars(
            endpoint=str(due.endpoint_id),
            number=record.number,
            status=attempt.status,
            result=error_class(attempt.result) or "ok",
            decision=type(decision).__name__,
        )
        match decision:
            case Delivered():
                return Done(Shared(write_all, record))
            case RetryAt(delay=delay, charged=charged):
                # Waiting for us to get well adds no line to the event's story each time.
                reason = described(attempt.result) if charged else ""
                return Later(delay, Shared(write_all, record), reason=reason)
            case Dead(reason=reason) | Disable(reason=reason):
                raise GaveUp(reason, record)

    async def on_lost(self, work: Work, error: PenstockError) -> Outcome:
        """A worker that dies says nothing of the messages that it held: a fault of ours, after which they rest.

        Raises:
            GaveUp: its workers die for longer than any receiver may be away.
            NotFound: the delivery or its endpoint was deleted.
        """
        due = await self.loader.load(work.tenant_id, delivery_id_of(work))
        if due.is_over:
            return Done()
        attempt = Attempt(OurFault(error.code, error.message), 0.0, None, datetime.now(UTC))
        return self._decided(work, due, attempt, None)

    @staticmethod
    async def on_dead(connection: Connection, work: Work, error: PenstockError) -> Sequence[Publication]:
        """Bury the delivery with its event: by its record, or, when the worker itself failed, with the error alone."""
        if isinstance(error, GaveUp):
            record = error.record
            await write_all(connection, [record])
            if isinstance(record.decision, Disable):
                return await disable(connection, record, record.decision.reason)
            return []
        await connection.execute(
            queries("deliver").bury,
            work.tenant_id,
            delivery_id_of(work),
            sources(DeliveryState.DEAD),
            error.as_dict(),
        )
        return []


def delivery_id_of(work: Work) -> UUID:
    """The delivery that an event is about.

    Raises:
        Permanent: the event does not name one.
    """
    data = read_data(work.type, work.major, work.data)
    assert isinstance(data, DeliveryDue)
    try:
        return UUID(data.delivery_id)
    except ValueError:
        raise Permanent("not the id of a delivery", field="delivery_id") from None

"""One message goes out to its receiver, signed, and what that came to comes back; deciding about it is not done here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.egress import Egress
from schemas.errors import PenstockError
from workers.deliver.due import Due
from workers.deliver.schedule import Replied, Result, result_of, retry_after_seconds
from workers.deliver.sign import signed_headers

USER_AGENT = "Penstock-Webhooks/1"
HEAD_BYTES = 1024
_OWN = frozenset(
    {"content-type", "user-agent", "traceparent", "webhook-id", "webhook-timestamp", "webhook-signature"}
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as it will be logged.

    Attributes:
        result: what it came to.
        elapsed_ms: from the start of the request to the end of the reply.
        head: the first bytes of the reply as text; None when there was none to show.
        at: when it began.
    """

    result: Result
    elapsed_ms: float
    head: str | None
    at: datetime

    @property
    def status(self) -> int | None:
        """The receiver's status code, where it answered."""
        return self.result.status if isinstance(self.result, Replied) else None


async def send(egress: Egress, due: Due, own: Mapping[str, str], keys: Sequence[bytes]) -> Attempt:
    """Send the stored bytes once, with the owner's own headers and a new timestamp and signature.

    Whatever the door raises becomes the attempt's result: a target that was blocked was not connected to, so there is
    no reply that could be stored or shown.
    """
    at = datetime.now(UTC)
    started = time.perf_counter()
    headers = {
        # The owner's headers never replace those that the receiver verifies by.
        **{name: value for name, value in own.items() if name.lower() not in _OWN},
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        **({} if due.traceparent is None else {"traceparent": due.traceparent}),
        **signed_headers(keys, due.message_id, int(at.timestamp()), due.body),
    }
    try:
        reply = await egress.request("POST", due.url, headers=headers, content=due.body, timeout=due.timeout)
    except PenstockError as error:
        return Attempt(result_of(error), _ms(started), None, at)
    retry_after = retry_after_seconds(reply.headers.get("retry-after"), datetime.now(UTC))
    return Attempt(Replied(reply.status, retry_after), _ms(started), shown(reply.body), at)


def shown(body: bytes) -> str:
    """The head of a reply as text that PostgreSQL takes and a terminal survives."""
    text = body[:HEAD_BYTES].decode("utf-8", errors="replace")
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def _ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000

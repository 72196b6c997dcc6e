"""Questions are asked here: waited for, streamed, looked up, withdrawn, rated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

import httpx2

from penstock_client import wire
from penstock_client.aio.transport import AsyncTransport
from penstock_client.errors import NotAnswered, Unreachable, refusal
from penstock_client.models import Accepted, Answer, StreamEvent
from penstock_client.sse import Frames

LONGEST_WAIT = 60.0
"""Seconds for which the gateway waits at most."""


class AsyncQuestions(AsyncTransport):
    """Questions and their answers."""

    async def ask(self, collection: str, question: str, *, timeout: float = 120.0, **options: Any) -> Answer:
        """Ask a question and wait for the answer.

        Args:
            collection: where to look.
            question: in words.
            timeout: seconds to wait in all.
            options: filter, top_k, history, template, model, response_schema, callback_url.

        Raises:
            NotAnswered: it takes longer; its id finds the answer later.
        """
        deadline = time.monotonic() + timeout
        wait = min(timeout, LONGEST_WAIT)
        found = await self.request(
            "POST",
            wire.path("collections", collection, "queries"),
            {"question": question, **wire.present(**options)},
            headers={"prefer": f"wait={int(wait)}"},
            longer=wait,
        )
        rest = 0.2
        while True:
            if "status" in found and (answer := Answer.model_validate(found)).ended:
                return answer
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotAnswered(str(found["id"]))
            await asyncio.sleep(min(rest, left))
            rest = min(2.0, rest * 1.5)
            found = await self.request("GET", wire.path("queries", str(found["id"])))

    async def submit(self, collection: str, question: str, **options: Any) -> str:
        """Ask without waiting; returns the question's id. The answer also goes to webhooks."""
        body = {"question": question, **wire.present(**options)}
        found = await self.request("POST", wire.path("collections", collection, "queries"), body)
        return str(found["id"])

    async def answer(self, query_id: str) -> Answer:
        """A question and its answer, as far as there is one."""
        return Answer.model_validate(await self.request("GET", wire.path("queries", query_id)))

    async def withdraw(self, query_id: str) -> Answer:
        """Withdraw a question; a model call under way is stopped."""
        return Answer.model_validate(await self.request("DELETE", wire.path("queries", query_id)))

    async def rate(
        self, query_id: str, rating: int | None = None, *, corrected: str | None = None
    ) -> Accepted:
        """Rate an answer (-1 or 1), correct it, or both."""
        body = wire.present(rating=rating, corrected=corrected)
        return Accepted.model_validate(
            await self.request("POST", wire.path("queries", query_id, "feedback"), body)
        )

    async def stream(self, collection: str, question: str, **options: Any) -> AsyncIterator[StreamEvent]:
        """Ask a question and follow its answer while it is written; the options are those of `ask`.

        A lost connection is taken up again after the last event. On `restart` discard what came so far. The last event is
        `done`, or `error` when no answer could be made; both carry the whole answer.
        """
        body = {"question": question, **wire.present(**options)}
        path = wire.path("collections", collection, "queries")
        async for said in self._follow("POST", path, body, ""):
            yield said

    async def follow(self, query_id: str, *, after: str = "") -> AsyncIterator[StreamEvent]:
        """Follow the answer of a question that was asked before, from its beginning or after an event's id."""
        async for said in self._follow("GET", wire.path("queries", query_id), None, after):
            yield said

    async def _follow(
        self, method: str, path: str, body: Mapping[str, Any] | None, last: str
    ) -> AsyncIterator[StreamEvent]:
        # The same key at every try: a question whose stream was lost before it began is not asked twice.
        key, attempt = str(uuid4()), 0
        while True:
            attempt += 1
            headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
            if method == "POST":
                headers["idempotency-key"] = key
            status: int | None = None
            after: float | None = None
            problem: dict[str, Any] = {}
            try:
                async with self._http.stream(method, path, json=body, headers=headers) as answer:
                    if answer.is_error:
                        status, problem = answer.status_code, wire.problem(await answer.aread())
                        after = wire.seconds(answer.headers.get("retry-after"))
                    else:
                        method, path, body = "GET", answer.headers["location"], None
                        frames = Frames()
                        async for line in answer.aiter_lines():
                            said = frames.feed(line)
                            if said is None:
                                continue
                            last, attempt = said.id or last, 0
                            yield said
                            if said.event in {"done", "error"}:
                                return
            except httpx2.TransportError:
                status = None
            pause = wire.pause(max(attempt, 1), self._attempts, status, after)
            if pause is None:
                if status is not None:
                    raise refusal(status, problem, after)
                raise Unreachable("the stream was lost again and again")
            await asyncio.sleep(pause)

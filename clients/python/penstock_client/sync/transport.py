"""Every request goes out here, is tried again where that is safe, and comes back as plain JSON or an exception."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2

from penstock_client import wire
from penstock_client.errors import Unreachable, refusal


class Transport:
    """A connection pool to one gateway, with one key."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        attempts: int = 4,
        timeout: float = 90.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Prepare; nothing is sent before the first call.

        Args:
            url: the gateway's address; ``PENSTOCK_URL`` unless given.
            key: an API key; ``PENSTOCK_API_KEY`` unless given.
            attempts: how often a request is tried when the gateway is away, busy or asks to wait.
            timeout: seconds for one try; waiting for an answer adds to it.
            transport: in place of httpx2's own.
        """
        address, secret = wire.configured(url, key)
        self._attempts = attempts
        self._timeout = timeout
        self._http = httpx2.Client(
            base_url=address,
            headers={"authorization": f"Bearer {secret}"},
            timeout=timeout,
            trust_env=wire.uses_proxy(address),
            transport=transport,
        )

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        longer: float = 0.0,
    ) -> Any:
        """One request, tried again while the gateway is away or busy.

        What changes something carries an Idempotency-Key, so that a try whose answer got lost is not done twice.

        Args:
            method: of HTTP.
            path: made by `wire.path`.
            body: sent as JSON.
            content: bytes instead of a body; their Content-Type is among the headers.
            headers: further ones.
            params: of the query; None is left out.
            longer: seconds for which the gateway was asked to wait.

        Returns:
            The answer's JSON, or None when it has no body.

        Raises:
            Refused: the gateway said no, with the reason.
            Unreachable: nobody answered.
        """
        sent = dict(headers or {})
        if method != "GET":
            sent.setdefault("idempotency-key", str(uuid4()))
        query = {name: value for name, value in (params or {}).items() if value is not None}
        attempt = 0
        while True:
            attempt += 1
            answer: httpx2.Response | None = None
            try:
                answer = self._http.request(
                    method,
                    path,
                    json=body,
                    content=content,
                    headers=sent,
                    params=query,
                    timeout=self._timeout + longer,
                )
            except httpx2.TransportError as error:
                pause = wire.pause(attempt, self._attempts, None, None)
                if pause is None:
                    raise Unreachable(f"no gateway answers ({type(error).__name__})") from None
            else:
                if not answer.is_error:
                    return json.loads(answer.content) if answer.content else None
                after = wire.seconds(answer.headers.get("retry-after"))
                pause = wire.pause(attempt, self._attempts, answer.status_code, after)
                if pause is None:
                    raise refusal(answer.status_code, wire.problem(answer.content), after)
            time.sleep(pause)

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """All items of a listing, page by page."""
        cursor: str | None = None
        while True:
            found = self.request("GET", path, params={**params, "cursor": cursor})
            for item in found["items"]:
                yield item
            cursor = found.get("next_cursor")
            if cursor is None:
                return

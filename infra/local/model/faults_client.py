"""Tests pass through here to switch faults on a running server and to read how often somebody paid."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import httpx2


class Faults:
    """Speaks to the part of a local model server that lies outside /v1.

    Args:
        base_url: the server's address, with or without /v1.
    """

    def __init__(self, base_url: str) -> None:
        address = base_url.rstrip("/").removesuffix("/v1")
        # The server speaks plain HTTP on the loopback address: no proxy of the environment reaches it, and loading
        # the trusted certificates would take 60 ms of every test.
        self._http = httpx2.AsyncClient(
            base_url=address, trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), timeout=10.0
        )

    async def __aenter__(self) -> Self:
        """Usable as a context manager."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection; faults stay as they are."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def add(self, endpoint: str, kind: str, **options: object) -> int:
        """Switch a fault on; `faults.Fault` describes the options. Returns its number."""
        shown = await self._ask("PUT", "/faults", {"endpoint": endpoint, "kind": kind, **options})
        return int(shown["id"])

    async def clear(self, endpoint: str | None = None) -> None:
        """Switch off all faults, or those of one endpoint or group."""
        await self._ask("DELETE", "/faults", query={"endpoint": endpoint} if endpoint else None)

    @asynccontextmanager
    async def during(self, endpoint: str, kind: str, **options: object) -> AsyncIterator[None]:
        """Keep a fault on while the context lasts; the endpoint's other faults end with it."""
        await self.add(endpoint, kind, **options)
        try:
            yield
        finally:
            await self.clear(endpoint)

    async def shown(self) -> list[dict[str, Any]]:
        """The faults that are on, with how many calls each has hit."""
        return list((await self._ask("GET", "/faults"))["faults"])

    async def calls(self) -> dict[str, dict[str, Any]]:
        """Counts by endpoint; endpoints without calls are absent."""
        return dict((await self._ask("GET", "/calls"))["endpoints"])

    async def requests(self, endpoint: str) -> int:
        """How many requests came in at an endpoint."""
        return int((await self.calls()).get(endpoint, {}).get("requests", 0))

    async def served(self, endpoint: str) -> int:
        """How many requests at an endpoint did their work: how often a provider would have charged."""
        return int((await self.calls()).get(endpoint, {}).get("served", 0))

    async def models(self) -> dict[str, int]:
        """How often each model was used."""
        return dict((await self._ask("GET", "/calls"))["models"])

    async def recent(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """The last calls, oldest first."""
        query = {"endpoint": endpoint} if endpoint else None
        return list((await self._ask("GET", "/calls/recent", query=query))["calls"])

    async def reset_calls(self) -> None:
        """Count from nought."""
        await self._ask("DELETE", "/calls")

    async def latency(self, endpoint: str, *, seconds: float = 0.0, per_token: float = 0.0) -> None:
        """Delay the replies of an endpoint, and the tokens of its streams."""
        await self._ask("PUT", "/latency", {"endpoint": endpoint, "seconds": seconds, "per_token": per_token})

    async def no_latency(self) -> None:
        """Delay nothing."""
        await self._ask("DELETE", "/latency")

    async def train_seconds(self, seconds: float) -> None:
        """How long training a job takes at least, from now on."""
        await self._ask("PUT", "/training", {"seconds": seconds})

    async def shutdown_date(self, model: str, date: str | None) -> None:
        """Announce the day from which a model is gone, or take it back."""
        await self._ask("PUT", f"/models/{model}", {"shutdown_date": date})

    async def webhook(self, url: str, secret: str, *, copies: int = 1) -> None:
        """Have the end of every job told to an address on this machine, signed as OpenAI signs."""
        await self._ask("PUT", "/webhook", {"url": url, "secret": secret, "copies": copies})

    async def no_webhook(self) -> None:
        """Tell nobody."""
        await self._ask("DELETE", "/webhook")

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        reply = await self._http.request(method, path, json=body, params=query)
        if reply.is_error:
            # The server's words say which fault or endpoint does not exist.
            raise ValueError(reply.json()["error"]["message"])
        return dict(reply.json())

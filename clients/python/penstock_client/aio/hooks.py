"""Webhook endpoints are registered here, and their deliveries looked at and replayed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from penstock_client import wire
from penstock_client.aio.transport import AsyncTransport
from penstock_client.models import Delivery, Endpoint


class AsyncHooks(AsyncTransport):
    """Webhooks."""

    async def add_webhook(self, url: str, types: Sequence[str] = ("*",), **options: Any) -> Endpoint:
        """Register an endpoint; its `secret` is shown this once.

        Args:
            url: where messages go.
            types: which events: exact names, families such as ``training.*``, or ``*``.
            options: filter, payload (full or thin), secret, description, headers, timeout_seconds, rate_limit,
                callback_prefix.
        """
        body = {"url": url, "types": list(types), **wire.present(**options)}
        return Endpoint.model_validate(await self.request("POST", wire.path("webhooks"), body))

    async def webhooks(self) -> AsyncIterator[Endpoint]:
        """The endpoints, oldest first."""
        async for item in self.pages(wire.path("webhooks")):
            yield Endpoint.model_validate(item)

    async def change_webhook(self, endpoint_id: str, **changes: Any) -> Endpoint:
        """Change an endpoint; what is left out stays. ``status="active"`` enables a disabled one."""
        return Endpoint.model_validate(
            await self.request("PATCH", wire.path("webhooks", endpoint_id), changes)
        )

    async def delete_webhook(self, endpoint_id: str) -> None:
        """Remove an endpoint with its messages."""
        await self.request("DELETE", wire.path("webhooks", endpoint_id))

    async def test_webhook(self, endpoint_id: str) -> str:
        """Send a test message; returns the delivery's id."""
        found = await self.request("POST", wire.path("webhooks", endpoint_id, "test"))
        return str(found["delivery_id"])

    async def deliveries(self, endpoint_id: str) -> AsyncIterator[Delivery]:
        """The messages to an endpoint, newest first, with their attempts."""
        async for item in self.pages(wire.path("webhooks", endpoint_id, "deliveries")):
            yield Delivery.model_validate(item)

    async def replay_delivery(self, delivery_id: str) -> str:
        """Send a message again; returns its id."""
        found = await self.request("POST", wire.path("deliveries", delivery_id, "replay"))
        return str(found["delivery_id"])

from __future__ import annotations

from tests.drive import Drive
from tests.infra.raw_server import Exchange, raw_server
from tests.producers.clients import Client

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_trace_reaches_the_webhook(client: Client, drive: Drive) -> None:
    """The `traceparent` of the request that published a document is on the webhook that tells of it; without, none is."""

    async def accept(exchange: Exchange) -> None:
        await exchange.reply(200)

    await drive.use("ingest", "deliver")
    async with raw_server(accept) as server:
        hook = {"url": f"http://127.0.0.1:{server.port}/", "types": ["document.indexed"]}
        assert (await client.call("POST", "/v1/webhooks", json=hook)).status_code == 201
        for name, headers in (("a", {"traceparent": TRACE}), ("b", {})):
            path = f"/v1/collections/books/documents/{name}"
            await client.call("PUT", path, json={"content": f"Text {name}."}, headers=headers)
            await drive.settle(client.tenant)
    lines = [[line for line in head.split("\r\n") if line.startswith("traceparent")] for head in server.heads]
    assert [[f"traceparent: {TRACE}"], []] == lines

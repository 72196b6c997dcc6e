from __future__ import annotations

import socket

import pytest

from infra.egress import Egress, EgressPolicy, SystemResolver
from schemas.errors import CallFailed, PenstockError, Unavailable
from tests.infra.raw_server import Exchange, raw_server


async def test_the_system_is_asked() -> None:
    """Without a resolver of one's own the operating system is asked, and its answer is judged and used."""

    async def ok(exchange: Exchange) -> None:
        await exchange.reply(200)

    async with raw_server(ok) as server:
        async with Egress(EgressPolicy.parse("127.0.0.0/8:*,[::1]:*")) as egress:
            assert 200 == (await egress.request("GET", f"http://localhost:{server.port}/")).status
        async with Egress(EgressPolicy.parse(f"192.0.2.1:{server.port}")) as egress:
            with pytest.raises(PenstockError, match="may not be connected to"):
                await egress.request("GET", f"http://localhost:{server.port}/")
    assert 1 == server.connections


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (socket.EAI_NONAME, CallFailed),
        (socket.EAI_AGAIN, Unavailable),
        (socket.EAI_FAIL, Unavailable),
        (socket.EAI_MEMORY, Unavailable),
    ],
)
async def test_whose_fault_a_failed_look_up_is(
    number: int, error: type[PenstockError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that does not exist is the target's fault; name servers that do not answer are ours."""

    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "said")

    resolver = SystemResolver()
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(error) as caught:
        await resolver.resolve("good.example", 443)
    assert "dns" == caught.value.field
    await resolver.aclose()


async def test_answers_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """All addresses come back, each once, in the system's order."""

    def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (text, 443)) for text in ("2606:4700::1", "8.8.8.8", "2606:4700::1")]

    resolver = SystemResolver()
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert ["2606:4700::1", "8.8.8.8"] == list(await resolver.resolve("good.example", 443))
    await resolver.aclose()

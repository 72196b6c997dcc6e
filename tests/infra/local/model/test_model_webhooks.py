from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from openai import AsyncOpenAI

from infra.local.model.hooks import sign
from tests.infra.local.model.helpdesk import Desk, upload
from tests.infra.local.model.waiting import until

if TYPE_CHECKING:
    from infra.local.model.faults_client import Faults

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ....").decode()


class Receiver:
    """Keeps what it gets; refuses as often as it is told to."""

    def __init__(self, refusals: int = 0) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.refusals = refusals
        self.url = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.split(": ", 1) for line in head.splitlines()[1:] if line]
        headers = {name.lower(): value for name, value in lines}
        body = await reader.readexactly(int(headers["content-length"]))
        status = "500 No" if self.refusals else "200 OK"
        if self.refusals:
            self.refusals -= 1
        else:
            self.got.append((headers, body))
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving(faults: Faults, *, refusals: int = 0, copies: int = 1) -> AsyncIterator[Receiver]:
    """A receiver that the server knows."""
    receiver = Receiver(refusals)
    server = await asyncio.start_server(receiver.take, "127.0.0.1", 0)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
        await faults.webhook(receiver.url, SECRET, copies=copies)
        yield receiver
        await faults.no_webhook()


async def run_job(client: AsyncOpenAI, desk: Desk) -> str:
    """Start a job; returns its id."""
    return (
        await client.fine_tuning.jobs.create(
            model="local-chat", training_file=await upload(client, desk.train)
        )
    ).id


def opened(client: AsyncOpenAI, headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """What the openai client makes of a webhook after checking its signature: type and job."""
    event: dict[str, Any] = client.webhooks.unwrap(body, dict(headers), secret=SECRET).to_dict()
    return event["type"], event["data"]["id"]


async def test_the_end_of_a_job_is_told_and_signed(client: AsyncOpenAI, faults: Faults, desk: Desk) -> None:
    """The openai client accepts the signature; the payload names the job and its outcome."""
    async with receiving(faults) as receiver:
        job_id = await run_job(client, desk)
        await until(lambda: arrived(receiver, 1))
    assert [("fine_tuning.job.succeeded", job_id)] == [opened(client, *got) for got in receiver.got]


async def arrived(receiver: Receiver, count: int) -> bool:
    """Whether so many webhooks have come."""
    return len(receiver.got) >= count


async def test_a_refused_webhook_comes_again(client: AsyncOpenAI, faults: Faults, desk: Desk) -> None:
    """Until it is taken, newly signed."""
    async with receiving(faults, refusals=2) as receiver:
        job_id = await run_job(client, desk)
        await until(lambda: arrived(receiver, 1))
    assert ("fine_tuning.job.succeeded", job_id) == opened(client, *receiver.got[0])


async def test_a_webhook_can_come_more_than_once(client: AsyncOpenAI, faults: Faults, desk: Desk) -> None:
    """With the same `webhook-id`, by which receivers know it."""
    async with receiving(faults, copies=3) as receiver:
        await run_job(client, desk)
        await until(lambda: arrived(receiver, 3))
    assert 1 == len({headers["webhook-id"] for headers, _ in receiver.got})


async def test_a_cancelled_job_is_told_as_cancelled(client: AsyncOpenAI, faults: Faults, desk: Desk) -> None:
    """Each outcome has its own type."""
    await faults.train_seconds(30)
    async with receiving(faults) as receiver:
        job_id = await run_job(client, desk)
        await client.fine_tuning.jobs.cancel(job_id)
        await until(lambda: arrived(receiver, 1))
    assert [("fine_tuning.job.cancelled", job_id)] == [opened(client, *got) for got in receiver.got]


@pytest.mark.parametrize(
    ("url", "secret"),
    [("http://example.com/", SECRET), ("https://127.0.0.1/", SECRET), ("http://127.0.0.1:1/", "whsec_?")],
)
async def test_only_receivers_on_this_machine_are_taken(url: str, secret: str, faults: Faults) -> None:
    """A test server calls nobody outside, and signs with a proper key."""
    with pytest.raises(ValueError, match="expected"):
        await faults.webhook(url, secret)


def test_the_signature_is_the_one_of_the_specification() -> None:
    """The golden vector of Standard Webhooks."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == signed

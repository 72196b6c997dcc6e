from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from cli.client_ask import read_events
from cli.client_http import Api, GatewayRefused
from cli.client_listen import DESCRIPTION, remove_leftovers, verify
from cli.run import USAGE, stop_with_message
from infra.signing_secrets import parse_secret
from producers.gateway.server import Serving
from schemas.errors import BadInput
from tests.drive import Drive
from tests.infra.raw_server import Exchange, raw_server
from tests.producers.clients import Client, Run, printed, report
from workers.deliver.sign import signature

RHINE = "The Rhine rises in the Swiss Alps and flows north into the North Sea."
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@asynccontextmanager
async def working(drive: Drive, tenant: str) -> AsyncIterator[None]:
    """What workers do: handle whatever comes, while the block runs."""

    async def work() -> None:
        while not ended.is_set():
            await drive.settle(tenant)
            await asyncio.sleep(0.05)

    ended = asyncio.Event()
    task = asyncio.create_task(work())
    yield
    ended.set()
    await task


async def start(
    gateway: Serving, client: Client, folder: Path, *arguments: str
) -> asyncio.subprocess.Process:
    """A command in a process of its own, whose output holds nothing else."""
    environment = {
        **os.environ,
        "PENSTOCK_URL": gateway.url,
        "PENSTOCK_API_KEY": client.key,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", *arguments,
        cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_a_question_is_asked_and_answered_with_citations(
    run: Run, client: Client, drive: Drive, gateway: Serving, tmp_path: Path
) -> None:
    """The answer is shown once, with where it stands; `--json` gives the whole of it; the only collection is found."""
    await drive.use("ingest", "answer")
    await client.call("PUT", "/v1/collections/rivers/documents/rhine.md", json={"content": RHINE})
    await drive.settle(client.tenant)
    async with working(drive, client.tenant):
        process = await start(gateway, client, tmp_path, "ask", "Where does the Rhine rise?")
        shown = (await process.communicate())[0].decode()
        whole = report(await run("ask", "Where does the Rhine rise?", "-c", "rivers", "--json"))
        nothing = await run("ask", "Who won the chess game in Reykjavik?")
    assert process.returncode == 0
    assert [line for line in shown.splitlines() if line.startswith("The Rhine rises")] == [f"{RHINE} [1]"]
    assert "[1] rhine.md" in shown
    assert (whole["status"], whole["citations"][0]["document_id"]) == ("answered", "rhine.md")
    assert "Nothing relevant was found" in nothing.stdout
    found = await run("search", "Where does the Rhine rise?", "--filter", '{"lang": {"$exists": false}}')
    assert "1. rhine.md" in found.stdout
    bad = await run("search", "x", "--filter", "{")
    assert isinstance(bad.exception, BadInput)
    unknown = await run("ask", "x", "-c", "none")
    assert isinstance(unknown.exception, GatewayRefused)
    assert unknown.exception.http_status == 404


async def test_without_a_collection_one_has_to_be_named(run: Run, client: Client) -> None:
    """None at all says how to make one; several are listed."""
    none = await run("ask", "Why?")
    assert isinstance(none.exception, BadInput)
    assert "penstock publish document" in (none.exception.fix or "")
    for name in ("a", "b"):
        await client.call("PUT", f"/v1/collections/{name}", json={})
    several = await run("ask", "Why?")
    assert isinstance(several.exception, BadInput)
    assert several.exception.fix == "name one: a, b"


async def test_webhooks_are_managed(run: Run) -> None:
    """Added, listed, tested, rotated, looked at and removed."""
    added = report(await run("webhooks", "add", "http://127.0.0.1:9/x", "-t", "document.*", "--json"))
    assert added["secret"].startswith("whsec_")
    assert "http://127.0.0.1:9/x" in (await run("webhooks", "list")).stdout
    rotated = report(await run("webhooks", "rotate", added["id"], "--overlap", "0", "--json"))
    assert rotated["secret"] != added["secret"]
    sent = report(await run("webhooks", "test", added["id"], "--wait", "0", "--json"))
    listed = await run("webhooks", "deliveries", added["id"], "--json")
    [delivery] = printed(listed)
    assert (delivery["id"], delivery["status"]) == (sent["delivery_id"], "pending")
    early = await run("webhooks", "replay", delivery["id"])
    assert isinstance(early.exception, GatewayRefused)
    off = report(await run("webhooks", "disable", added["id"], "--json"))
    assert "disabled" == off["status"]
    assert "active" == report(await run("webhooks", "enable", added["id"], "--json"))["status"]
    many = report(
        await run("webhooks", "replay", "--webhook", added["id"], "--since", "2h", "--dry-run", "--json")
    )
    assert (0, True) == (many["messages"], many["dry_run"])
    for arguments in (
        ("replay",),
        ("replay", "--webhook", "x", "y"),
        ("replay", "--webhook", "x", "--since", "soon"),
        ("replay", "--webhook", "x", "--missing"),
        ("add", "http://127.0.0.1:9/x", "--header", "no colon"),
    ):
        refused = (await run("webhooks", *arguments)).exception
        assert isinstance(refused, BadInput)
        assert USAGE == stop_with_message(refused).exit_code
    assert (await run("webhooks", "remove", added["id"])).exit_code == 0
    assert "No webhooks" in (await run("webhooks", "list")).stdout


async def test_a_test_message_is_followed_to_its_end(run: Run, client: Client, drive: Drive) -> None:
    """`webhooks test` shows what became of the message: 0 when it arrived, 1 and the reason when it did not."""
    await drive.use("deliver")

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200 if exchange.head.startswith("POST /good") else 404, b"said")

    async with raw_server(script) as server, working(drive, client.tenant):
        shown = {}
        for name in ("good", "bad"):
            made = report(await run("webhooks", "add", f"http://127.0.0.1:{server.port}/{name}", "--json"))
            ended = await run("webhooks", "test", made["id"], "--json")
            shown[name] = (ended.exit_code, report(ended))
        listed = (await run("webhooks", "deliveries", made["id"])).stdout
        tried = printed(await run("webhooks", "deliveries", made["id"], "--attempts", "--json"))
    assert (0, "delivered", 200) == (
        shown["good"][0],
        shown["good"][1]["status"],
        shown["good"][1]["status_code"],
    )
    code, bad = shown["bad"]
    assert (1, 404, "said") == (code, bad["status_code"], bad["response_head"])
    assert "the receiver answered 404" in bad["reason"]
    assert "the receiver answered 404" in listed
    assert (404, "status", "said") == tuple(
        tried[0][name] for name in ("status_code", "error", "response_head")
    )


async def test_listen_registers_verifies_shows_and_cleans_up(
    gateway: Serving, client: Client, drive: Drive, tmp_path: Path
) -> None:
    """A developer's receiver shows what arrives with its signature checked, and leaves no endpoint behind."""
    await drive.use("ingest", "deliver")
    arguments = ("webhooks", "listen", "--port", "0", "--count", "1", "--json")
    process = await start(gateway, client, tmp_path, *arguments)
    assert process.stderr is not None
    assert b"listening on" in await process.stderr.readline()
    await client.call("PUT", "/v1/collections/rivers/documents/rhine", json={"content": RHINE})
    async with working(drive, client.tenant):
        out, _ = await process.communicate()
    shown = json.loads(out)
    assert (shown["verified"], shown["body"]["type"]) == (True, "document.indexed")
    assert process.returncode == 0
    assert (await client.call("GET", "/v1/webhooks")).json()["items"] == []


async def test_what_a_killed_listener_left_is_removed(client: Client, gateway: Serving) -> None:
    """The next one at the same address removes its endpoint, and no other."""
    url, others = (
        "http://127.0.0.1:8430/",
        [("http://127.0.0.1:8430/", "mine"), ("http://127.0.0.1:9/", DESCRIPTION)],
    )
    for address, description in [(url, DESCRIPTION), *others]:
        await client.call("POST", "/v1/webhooks", json={"url": address, "description": description})
    with httpx2.Client(
        base_url=gateway.url, headers={"authorization": f"Bearer {client.key}"}, trust_env=False
    ) as http:
        await asyncio.to_thread(remove_leftovers, Api(http), url)
    left = (await client.call("GET", "/v1/webhooks")).json()["items"]
    assert others == [(one["url"], one["description"]) for one in left]


async def test_settings_are_listed_and_changed(run: Run, tmp_path: Path) -> None:
    """Collections, datasets, templates and models; what exists already is not made again."""
    made = report(await run("collections", "create", "books", "--language", "german", "--json"))
    assert (made["name"], made["language"]) == ("books", "german")
    twice = await run("collections", "create", "books")
    assert isinstance(twice.exception, BadInput)
    changed = report(await run("collections", "set", "books", "--chunk-size", "128", "--json"))
    assert changed["settings"] == {"chunking": {"size": 128}}
    assert isinstance(
        (await run("collections", "set", "none", "--chunk-size", "128")).exception, GatewayRefused
    )
    assert "books" in (await run("collections", "list")).stdout
    dropped = report(await run("collections", "drop", "books", "--yes", "--json"))
    assert {"dropped": "books", "documents": 0, "chunks": 0} == dropped
    assert "books" not in (await run("collections", "list")).stdout
    dataset = report(await run("datasets", "create", "rivers", "--threshold", "7", "--json"))
    assert dataset["threshold"] == 7
    assert (
        report(await run("datasets", "set", "rivers", "--approval", "automatic", "--json"))["approval"]
        == "automatic"
    )
    assert "rivers" in (await run("datasets", "list")).stdout
    assert "Nothing waits" in (await run("datasets", "review", "rivers")).stdout
    template = tmp_path / "short.txt"
    template.write_text("Answer in one sentence.\n")
    assert report(await run("templates", "put", "short", str(template), "--json"))["version"] == 1
    assert (await run("templates", "diff", "short", str(template))).exit_code == 0
    template.write_text("Answer in two sentences.\n")
    diff = await run("templates", "diff", "short", str(template))
    assert (diff.exit_code, "+Answer in two sentences." in diff.stdout) == (1, True)
    assert "short" in (await run("templates", "list")).stdout
    assert "No tuned models yet" in (await run("models", "list")).stdout
    assert "chat" in (await run("models", "aliases")).stdout


async def test_examples_are_reviewed(run: Run, client: Client, drive: Drive) -> None:
    """What waits is listed, and approved by id or altogether."""
    await drive.use("train", "ingest", "answer")
    await client.call("PUT", "/v1/datasets/chats", json={"approval": "manual", "threshold": 1000})
    await client.call("PUT", "/v1/collections/rivers/documents/rhine", json={"content": RHINE})
    await drive.settle(client.tenant)
    asked = await client.call(
        "POST", "/v1/collections/rivers/queries", json={"question": "Where does the Rhine rise?"}
    )
    await drive.settle(client.tenant)
    path = f"/v1/queries/{asked.json()['id']}/feedback"
    await client.call("POST", path, json={"corrected": "It rises in the Swiss Alps."})
    await drive.settle(client.tenant)
    assert "Swiss Alps" in (await run("datasets", "review", "chats")).stdout
    approved = await run("datasets", "review", "chats", "--approve", "--all")
    assert "1 of 1 changed" in approved.stdout
    assert "Nothing waits" in (await run("datasets", "review", "chats")).stdout


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"webhook-id": "msg_other"}, "no signature fits"),
        ({"webhook-signature": ""}, "no signature fits"),
        ({"webhook-timestamp": "1614265000"}, "the timestamp is more than five minutes off"),
        ({"webhook-timestamp": "soon"}, "webhook-id or webhook-timestamp is missing"),
    ],
)
def test_signatures_are_checked(change: dict[str, str], problem: str | None) -> None:
    """Against the golden vector of Standard Webhooks; anything else is said to be wrong."""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,wrong v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        **change,
    }
    assert verify(parse_secret(SECRET), headers, b'{"test": 2432232314}', 1614265331.0) == problem
    assert signature(parse_secret(SECRET), "a", 1, b"").startswith("v1,")


def test_server_sent_events_are_read() -> None:
    """Comments and retry hints are no events."""
    lines = ["retry: 1000", "", ": still here", "", "id: 1-2", "event: token", 'data: {"text": "a: b"}', ""]
    assert list(read_events(lines)) == [("1-2", "token", {"text": "a: b"})]

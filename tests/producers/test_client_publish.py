from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from cli.client_http import Api
from producers.gateway.server import Serving
from schemas.errors import Misconfigured, PenstockError
from tests.drive import Drive
from tests.producers.clients import Client, Run, report


async def test_a_folder_is_published_once(run: Run, drive: Drive, client: Client, tmp_path: Path) -> None:
    """Files become documents under their paths; a second run publishes what has changed and nothing else."""
    await drive.use("ingest")
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "docs" / ".hidden").write_text("not this")
    (tmp_path / "docs" / "a.md").write_text("# Rhine\n\nThe Rhine flows north.")
    (tmp_path / "docs" / "deep" / "b.txt").write_text("The Rhône flows south.")
    arguments = ("publish", "document", "docs", "--collection", "rivers", "--wait", "0", "--json")
    first = await run(*arguments, "--metadata", '{"lang": "en"}')
    assert first.exit_code == 0, first.output
    assert sorted(report(first)["events"]) == ["docs/a.md", "docs/deep/b.txt"]
    await drive.settle(client.tenant)
    shown = await client.call("GET", "/v1/collections/rivers/documents/docs%2Fa.md")
    assert (shown.json()["status"], shown.json()["metadata"]) == ("indexed", {"lang": "en"})
    again = report(await run(*arguments, "--metadata", '{"lang": "en"}'))
    assert (again["accepted"], again["unchanged"]) == (0, 2)
    (tmp_path / "docs" / "a.md").write_text("# Rhine\n\nThe Rhine flows north, slowly.")
    changed = report(await run(*arguments, "--metadata", '{"lang": "en"}'))
    assert (sorted(changed["events"]), changed["unchanged"]) == (["docs/a.md"], 1)


async def test_a_file_may_go_back_to_an_earlier_text(
    run: Run, drive: Drive, client: Client, tmp_path: Path
) -> None:
    """A, B, A ends with A, and the fourth run finds nothing to do; deleted, it comes back."""
    await drive.use("ingest")
    arguments = ("publish", "document", "a.txt", "--collection", "rivers", "--wait", "0", "--json")
    outcomes = []
    for text in ("The Rhine.", "The Rhône.", "The Rhine.", "The Rhine."):
        (tmp_path / "a.txt").write_text(text)
        outcomes.append(report(await run(*arguments))["accepted"])
        await drive.settle(client.tenant)
    assert outcomes == [1, 1, 1, 0]
    [row] = await drive.rows("SELECT text FROM chunks WHERE tenant_id = $1", client.tenant)
    assert row["text"] == "The Rhine."
    await client.call("DELETE", "/v1/collections/rivers/documents/a.txt")
    await drive.settle(client.tenant)
    assert report(await run(*arguments))["accepted"] == 1
    await drive.settle(client.tenant)
    [row] = await drive.rows("SELECT text FROM chunks WHERE tenant_id = $1", client.tenant)
    assert row["text"] == "The Rhine."


async def test_a_dropped_collection_is_filled_anew(
    run: Run, drive: Drive, client: Client, tmp_path: Path
) -> None:
    """The same files come back after each drop, although their ids were published before; a drop wants a yes."""
    await drive.use("ingest")
    (tmp_path / "a.txt").write_text("The Rhine.")
    arguments = ("publish", "document", "a.txt", "--collection", "rivers", "--wait", "0", "--json")
    for _ in range(3):
        assert 1 == report(await run(*arguments))["accepted"]
        await drive.settle(client.tenant)
        assert 0 == report(await run(*arguments))["accepted"]
        unsure = await run("collections", "drop", "rivers")
        assert (1, 200) == (
            unsure.exit_code, (await client.call("GET", "/v1/collections/rivers")).status_code
        )  # fmt: skip
        assert 1 == report(await run("collections", "drop", "rivers", "--yes", "--json"))["documents"]
        assert 404 == (await client.call("GET", "/v1/collections/rivers")).status_code
    assert [] == (await client.call("GET", "/v1/collections")).json()["items"]


async def test_what_is_refused_is_told_with_its_reason(run: Run, tmp_path: Path) -> None:
    """Good files are published beside bad ones; the table names each bad one, and the exit code is 1."""
    (tmp_path / "good.txt").write_text("Water.")
    (tmp_path / "latin.txt").write_bytes(b"Rh\xf4ne")
    (tmp_path / "binary.txt").write_bytes(b"a\x00b")
    shown = await run("publish", "document", ".", "missing.txt", "-c", "rivers", "--wait", "0", "--json")
    assert shown.exit_code == 1
    told = report(shown)
    assert sorted(told["events"]) == ["good.txt"]
    assert sorted((one["what"], one["field"]) for one in told["problems"]) == [
        ("binary.txt", "content"),
        ("latin.txt", "content"),
        ("missing.txt", "path"),
    ]
    table = await run("publish", "document", "latin.txt", "-c", "rivers", "--wait", "0")
    assert "0 published, 0 unchanged, 1 refused" in table.stdout
    assert "is not UTF-8 text" in table.stdout


async def test_waiting_shows_what_could_not_be_indexed(
    run: Run, drive: Drive, client: Client, tmp_path: Path
) -> None:
    """With `--wait` an accepted document that turns out unreadable is told as refused, with its reason."""
    await drive.use("ingest")
    (tmp_path / "good.txt").write_text("Water.")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing more")
    ended = asyncio.Event()

    async def work() -> None:
        while not ended.is_set():
            await drive.settle(client.tenant)
            await asyncio.sleep(0.05)

    worker = asyncio.create_task(work())
    shown = await run("publish", "document", ".", "-c", "rivers", "--wait", "30", "--json")
    ended.set()
    await worker
    assert [one["what"] for one in report(shown)["problems"]] == ["broken.pdf"]
    assert (shown.exit_code, report(shown)["under_way"]) == (1, 0)


async def test_examples_batches_and_events_come_from_lines(run: Run, client: Client, tmp_path: Path) -> None:
    """JSONL of examples, a batch for one run, and CloudEvents from files and standard input."""
    lines = [
        {"messages": [{"role": "user", "content": f"River {n}?"}, {"role": "assistant", "content": "Yes."}]}
        for n in range(3)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "e.jsonl").write_text(text + "\n\nnot json\n")
    examples = report(await run("publish", "example", "e.jsonl", "--dataset", "rivers", "--json"))
    assert (examples["accepted"], [one["what"] for one in examples["problems"]]) == (3, ["e.jsonl:5"])
    piped = report(await run("publish", "example", "-", "--dataset", "rivers", "--json", stdin=text))
    assert (piped["accepted"], piped["unchanged"]) == (0, 3)
    (tmp_path / "batch.jsonl").write_text(text)
    batch = report(await run("publish", "batch", "batch.jsonl", "-d", "rivers", "--reason", "now", "--json"))
    assert batch["accepted"] == 1
    event = {"type": "document.deleted", "data": {"collection": "c", "document_id": "x"}}
    (tmp_path / "event.json").write_text(json.dumps([event, {**event, "type": "document.exploded"}]))
    events = report(await run("publish", "event", "event.json", "--json"))
    assert (events["accepted"], events["problems"][0]["field"]) == (1, "type")
    documents = '{"document_id": "one", "content": "Water."}\n{"document_id": "two"}\n'
    (tmp_path / "d.jsonl").write_text(documents)
    told = report(await run("publish", "document", "d.jsonl", "-c", "books", "--wait", "0", "--json"))
    assert (list(told["events"]), [one["what"] for one in told["problems"]]) == (["one"], ["two"])
    listed = (await client.call("GET", "/v1/events", params={"limit": 100})).json()["items"]
    assert sorted(one["type"] for one in listed) == [
        "document.added",
        "document.deleted",
        "example.recorded",
        "example.recorded",
        "example.recorded",
        "training.batch_ready",
    ]


async def test_patterns_name_files(run: Run, tmp_path: Path) -> None:
    """A quoted pattern is ours to expand, for documents and for lines; one that matches nothing is told."""
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    for name in ("docs/a.md", "docs/deep/b.md", "docs/c.txt", "docs/odd[1].md"):
        (tmp_path / name).write_text(name)
    for number in (1, 2):
        (tmp_path / f"{number}.jsonl").write_text(
            f'{{"document_id": "line-{number}", "content": "Water."}}\n'
        )
    arguments = ("--collection", "c", "--wait", "0", "--json")
    told = report(
        await run("publish", "document", "docs/**/*.md", "*.jsonl", "docs/odd[1].md", "no*", *arguments)
    )
    assert sorted(told["events"]) == ["docs/a.md", "docs/deep/b.md", "docs/odd[1].md", "line-1", "line-2"]
    assert [(one["what"], one["why"]) for one in told["problems"]] == [("no*", "nothing matches no*")]


async def test_an_interrupted_load_says_how_far_it_came_and_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent is told; the same command again publishes the rest and nothing twice."""
    lines = [{"document_id": str(number), "content": f"River {number}."} for number in range(450)]
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    arguments = ("publish", "document", "d.jsonl", "--collection", "c", "--wait", "0", "--json")
    send, sent = Api.send, 0

    def press(self: Api, path: str, content: bytes, content_type: str) -> object:
        nonlocal sent
        sent += 1
        if sent == 3:
            raise KeyboardInterrupt
        return send(self, path, content, content_type)

    with monkeypatch.context() as patch:
        patch.setattr(Api, "send", press)
        cut = report(await run(*arguments))
    assert (cut["accepted"], cut["interrupted"]) == (400, True)
    rest = report(await run(*arguments))
    assert (rest["accepted"], rest["unchanged"], rest["interrupted"]) == (50, 400, False)


async def test_errors_name_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No gateway, a wrong key and a missing key are told apart, each with its fix."""
    (tmp_path / "a.txt").write_text("Water.")

    async def fails(**environment: str) -> PenstockError:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        result = await run("collections", "list")
        assert isinstance(result.exception, PenstockError)
        return result.exception

    wrong = await fails(PENSTOCK_API_KEY="psk_wrong")
    assert "unknown, expired or revoked" in wrong.message
    away = await fails(PENSTOCK_URL="http://127.0.0.1:1")
    assert "PENSTOCK_URL" in (away.fix or "")
    monkeypatch.delenv("PENSTOCK_API_KEY")
    missing = await fails()
    assert isinstance(missing, Misconfigured)
    assert missing.field == "PENSTOCK_API_KEY"


async def test_a_local_stack_is_found_by_its_file(
    run: Run, gateway: Serving, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.penstock/dev.env` fills what is not set; its keys are never sent to another gateway."""
    for name in ("PENSTOCK_URL", "PENSTOCK_API_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / ".penstock").mkdir()
    text = f"PENSTOCK_URL={gateway.url}\nPENSTOCK_API_KEY={client.key}\nPENSTOCK_ADMIN_KEY={client.key}\n"
    (tmp_path / ".penstock" / "dev.env").write_text(text)
    assert (await run("collections", "list")).exit_code == 0
    admin = await run("webhooks", "list")
    assert (admin.exit_code, "PENSTOCK_ADMIN_KEY" in admin.stderr) == (0, True)
    monkeypatch.setenv("PENSTOCK_URL", "http://127.0.0.1:1")
    elsewhere = await run("collections", "list")
    assert isinstance(elsewhere.exception, Misconfigured)
    assert os.environ.get("PENSTOCK_API_KEY") is None

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import BadInput, Unavailable, Unreadable
from workers.ingest.chunk import Chunking
from workers.ingest.media import source
from workers.ingest.prepare import INLINE, prepare, prepare_here
from workers.ingest.sandbox import Limits, Sandbox

MakePdf = Callable[..., bytes]
DEFAULT = Chunking()
ROOT = Path(__file__).parents[3]


async def test_the_sandbox_gives_what_reading_here_gives(sandbox: Sandbox) -> None:
    """Title, chunks, headings and hashes are the same on both sides of the pipe."""
    html = "<title>T</title><h1>Head</h1>" + "<p>Some words of a paragraph. " * 2_000
    assert await prepare(html, "text/html", DEFAULT, sandbox) == prepare_here(
        source(html, "text/html"), DEFAULT
    )


async def test_a_pdf_s_pages_arrive(sandbox: Sandbox, make_pdf: MakePdf) -> None:
    """A PDF sent as base64 comes back with the page of each chunk."""
    content = b64encode(make_pdf(["first " * 200, "second " * 200])).decode()
    prepared = await prepare(content, "application/pdf", DEFAULT, sandbox)
    assert {1, 2} == {chunk.page for chunk in prepared.chunks}


async def test_errors_keep_their_kind_page_and_field(sandbox: Sandbox, make_pdf: MakePdf) -> None:
    """What a reader raises in the child is raised here, and the child goes on living."""
    raw = make_pdf(["good", "bad"], filters={2: "NoSuchDecode"})
    with pytest.raises(Unreadable) as unreadable:
        await prepare(raw, "application/pdf", DEFAULT, sandbox)
    assert unreadable.value.page == 2
    with pytest.raises(BadInput) as wrong:
        await prepare("no base64!", "application/pdf", DEFAULT, sandbox)
    assert wrong.value.field == "data.content"
    assert (await prepare("<p>fine", "text/html", DEFAULT, sandbox)).chunks


async def test_large_text_does_not_hold_up_the_event_loop(sandbox: Sandbox) -> None:
    """While 10 MB are read, the loop goes on turning."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    prepared = await prepare("some words in a line " * 500_000, "text/plain", DEFAULT, sandbox)
    turning.cancel()
    assert len(prepared.chunks) > 10_000
    assert turns > 50


async def test_a_document_that_eats_memory_is_refused() -> None:
    """The limit on memory ends one document, with its reason, and not the child."""
    if sys.platform != "linux":
        pytest.skip("only Linux limits a process's address space")
    async with Sandbox.open(Limits(memory=250 << 20), children=1) as sandbox:
        with pytest.raises(Unreadable, match="more memory than allowed"):
            await prepare("word " * 9_000_000, "text/plain", DEFAULT, sandbox)
        assert (await prepare("<p>fine", "text/html", DEFAULT, sandbox)).chunks


async def test_a_document_that_eats_the_processor_is_refused() -> None:
    """The limit on processor time kills the fork; the next document finds another child."""
    async with Sandbox.open(Limits(cpu=1), children=1) as sandbox:
        with pytest.raises(Unreadable, match="takes too long"):
            await prepare("<p>" + "<b>x</b> word " * 2_000_000, "text/html", DEFAULT, sandbox)
        assert (await prepare("<p>fine", "text/html", DEFAULT, sandbox)).chunks


async def test_a_child_that_answers_too_late_is_killed() -> None:
    """The limit on the clock ends the wait; that is nobody's fault but the machine's, so the work may try again."""
    async with Sandbox.open(Limits(wall=0.01), children=1) as sandbox:
        with pytest.raises(Unavailable, match="not read within"):
            await prepare("<p>fine", "text/html", DEFAULT, sandbox)
        assert not sandbox._all


async def test_a_killed_child_is_replaced() -> None:
    """Somebody kills a child (as the system does when memory runs out): the next document is read by a new one."""
    async with Sandbox.open(children=1) as sandbox:
        await prepare("<p>one", "text/html", DEFAULT, sandbox)
        (child,) = sandbox._all
        os.kill(child._process.pid, signal.SIGKILL)
        await child._process.wait()
        with pytest.raises(Unavailable, match="died"):
            await prepare("<p>two", "text/html", DEFAULT, sandbox)
        assert (await prepare("<p>three", "text/html", DEFAULT, sandbox)).chunks


async def test_a_cancelled_reader_leaves_no_process_behind() -> None:
    """Whoever waits for a document may go away in the middle: its child goes too."""
    async with Sandbox.open(children=1) as sandbox:
        reading = asyncio.create_task(prepare("<p>x " * 3_000_000, "text/html", DEFAULT, sandbox))
        while not sandbox._all:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        (child,) = sandbox._all
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert child._process.returncode is not None
        assert not sandbox._all


async def test_small_text_needs_no_child(sandbox: Sandbox) -> None:
    """Plain text below the threshold is read here; HTML never is."""
    async with Sandbox.open(children=1) as unused:
        await prepare("x" * INLINE, "text/plain", DEFAULT, unused)
        assert not unused._all
        await prepare("<p>x", "text/html", DEFAULT, unused)
        assert unused._all
    assert sandbox is not unused


FORBIDDEN = """
import sys; sys.path.insert(0, sys.argv[1])
import resource, socket, subprocess, urllib.request
from workers.ingest import child
child._limit(1 << 30, 5)
def attempt(what):
    try:
        what()
    except PermissionError as error:
        print("refused" if "sandbox" in str(error) else error)
    else:
        print("allowed")
attempt(lambda: socket.create_connection(("127.0.0.1", 1)))
attempt(lambda: socket.getaddrinfo("localhost", 80))
attempt(lambda: urllib.request.urlopen("http://127.0.0.1:1/"))
attempt(lambda: subprocess.run(["true"]))
attempt(lambda: open("/etc/passwd"))
attempt(lambda: open("here.txt", "w"))
import colorsys
print(colorsys.__name__)
"""


def test_the_sandbox_refuses_network_processes_and_files(tmp_path: Path) -> None:
    """Nothing inside a document can be fetched or started, whichever library tries; Python's own code still loads."""
    ran = subprocess.run(
        [sys.executable, "-I", "-c", FORBIDDEN, str(ROOT)],
        capture_output=True, text=True, env={}, cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    assert ran.stdout.split() == ["refused"] * 6 + ["colorsys"]

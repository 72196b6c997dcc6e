"""The demo's stack passes through here: `penstock up` as a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cli.local import DEV_FILE
from cli.run import STACK_FILE, TIED
from schemas.errors import Unavailable

START_WITHIN = 90.0
STOP_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class DemoStack:
    """A stack that is up.

    Attributes:
        url: the gateway.
        owner_url: the database's owner, for making a tenant and for counting.
        home: its `.penstock` folder.
        settings: what its processes were given.
    """

    url: str
    owner_url: str
    home: Path
    settings: Mapping[str, str]
    admin_key: str


def clean_environment() -> dict[str, str]:
    """The environment without whatever could lead the demo to somebody's real servers."""
    from infra.local.environment import hostile_names

    hostile = set(hostile_names(os.environ))
    loopback = "127.0.0.1,localhost,::1"
    kept = {name: value for name, value in os.environ.items() if name not in hostile}
    return {**kept, "NO_PROXY": loopback, "no_proxy": loopback}


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def demo_stack(folder: Path, *, keep: bool) -> AsyncIterator[DemoStack]:
    """Start from nothing and, unless it is kept, stop and remove everything at the end.

    Args:
        folder: holds the demo's `.penstock`; what an earlier demo left there is removed.
        keep: leave the stack running when the block ends well.
    """
    from infra.local.stack import wipe

    await asyncio.to_thread(wipe, folder)
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / ".penstock"
    port = free_port()
    log = folder / "up.log"
    environment = {**clean_environment(), "PENSTOCK_HOME": str(home)}
    if not keep:
        environment[TIED] = "1"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli.main", "up", "--port", str(port),
            stdin=asyncio.subprocess.DEVNULL if keep else asyncio.subprocess.PIPE,
            stdout=output, stderr=output, env=environment,
            cwd=folder,  # no .env of the caller's
            start_new_session=True,
        )  # fmt: skip
    finished = False
    try:
        yield await _ready(process, home, port, log)
        finished = True
    finally:
        if not (keep and finished):
            await _stop(process)
            await asyncio.to_thread(wipe, folder)
            with suppress(OSError):
                shutil.rmtree(folder)


async def _ready(process: asyncio.subprocess.Process, home: Path, port: int, log: Path) -> DemoStack:
    """Wait until `up` says that it is ready, which is when it prints the address."""
    deadline = asyncio.get_running_loop().time() + START_WITHIN
    while b"Penstock is up" not in log.read_bytes():
        if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise Unavailable(f"the stack did not start:\n{tail}")
        await asyncio.sleep(0.05)
    settings: dict[str, str] = json.loads((home / STACK_FILE).read_text(encoding="utf-8"))
    lines = (home / DEV_FILE).read_text(encoding="utf-8").splitlines()
    keys = dict(line.split("=", 1) for line in lines)
    return DemoStack(
        url=f"http://127.0.0.1:{port}",
        owner_url=settings["PENSTOCK_DATABASE_OWNER_URL"],
        home=home,
        settings=settings,
        admin_key=keys["PENSTOCK_ADMIN_KEY"],
    )


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

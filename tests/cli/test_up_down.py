"""`penstock up` and `down` as a developer uses them, and the demo's stack in a hostile environment."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.demo.stack import demo_stack, free_port
from tests.cli.commands import Penstock, bare_environment
from tests.cli.waiting import eventually

SERVES = 8
"""Processes that `up` starts at least: PostgreSQL, Valkey, gateway, four pools, maintain."""


def healthy(url: str) -> bool:
    """Whether the gateway says ok."""
    with urllib.request.urlopen(f"{url}/healthz", timeout=5) as reply:  # noqa: S310 - our own loopback address
        return bool(reply.status == 200)


def descendants(root: int) -> set[int]:
    """Every process below this one."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in listing.splitlines())}
    found, waiting = set[int](), {root}
    while waiting:
        waiting = {pid for pid, parent in parents.items() if parent in waiting} - found
        found |= waiting
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run; a dead child that nobody has collected does not."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    states = {int(pid): state for pid, state in (line.split()[:2] for line in listing.splitlines())}
    return {pid for pid in pids if not states.get(pid, "Z").startswith("Z")}


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`penstock up` in a folder, until it is ready; stopped at the end if it still runs."""
    port = free_port()
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up", "--port", str(port)],
            cwd=folder,
            env=bare_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        eventually(
            lambda: b"Penstock is up" in (folder / "up.log").read_bytes() or process.poll() is not None
        )
        assert process.poll() is None, (folder / "up.log").read_text()
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)


def private(path: Path) -> bool:
    """Whether only its owner may read it."""
    return stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.timeout(400)
def test_up_serves_until_it_is_killed_and_again_until_down(nowhere: Penstock) -> None:
    """Its keys are readable by their owner only; after kill -9 and after `down` no process is left, and the data is."""
    home = nowhere.folder / ".penstock"
    with running(nowhere.folder) as (process, url):
        assert healthy(url)
        settings = dict(line.split("=", 1) for line in (home / "dev.env").read_text().splitlines())
        assert {"PENSTOCK_URL": url} == {name: settings[name] for name in ("PENSTOCK_URL",)}
        assert {"PENSTOCK_URL", "PENSTOCK_API_KEY", "PENSTOCK_ADMIN_KEY"} == set(settings)
        assert all(private(home / name) for name in ("dev.env", "stack.json"))
        assert private(home)
        assert ["dev"] == [one["tenant_id"] for one in nowhere.json("tenants", "list")]
        assert nowhere.json("doctor")["ok"]
        nowhere.run("tenants", "create", "kept")
        family = descendants(process.pid)
        assert len(family) >= SERVES
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        eventually(lambda: alive(family) == set())
    nowhere.run("down")
    nowhere.run("down")
    with running(nowhere.folder) as (process, _):
        assert {"dev", "kept"} == {one["tenant_id"] for one in nowhere.json("tenants", "list")}
        family = descendants(process.pid)
        assert len(family) >= SERVES
        assert "stopped" in nowhere.run("down").stdout
        process.wait(timeout=60)
    eventually(lambda: alive(family) == set())
    assert not (home / "stack.json").exists()
    assert "nothing was running" in nowhere.run("down").stdout
    assert "is not set" in nowhere.run("tenants", "list", expect=2).stderr
    nowhere.run("down", "--wipe")
    assert not list(home.glob("*"))


@contextmanager
def trap() -> Iterator[tuple[int, list[bytes]]]:
    """A port that takes note of whoever connects."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    seen.append(connection.recv(100))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield port, seen
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


@pytest.mark.timeout(240)
async def test_the_demo_connects_to_nothing_of_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported servers and an .env in the directory are all traps; the demo's stack starts, works and touches none."""
    with trap() as (port, seen):
        hostile = {
            "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{port}/x",
            "PENSTOCK_DATABASE_OWNER_URL": f"postgresql://u:p@127.0.0.1:{port}/x",
            "REDIS_URL": f"redis://127.0.0.1:{port}/0",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "OPENAI_API_KEY": "sk-real",
            "PENSTOCK_TRAINER_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "PENSTOCK_HOME": str(tmp_path / "elsewhere"),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
        }
        for name, value in hostile.items():
            monkeypatch.setenv(name, value)
        lines = "".join(f"{name}={value}\n" for name, value in hostile.items())
        (tmp_path / ".env").write_text(lines, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        async with demo_stack(tmp_path / "demo", keep=False) as stack:
            assert healthy(stack.url)
            assert str(port) not in "".join(stack.settings.values())
            assert "sk-real" not in stack.settings.values()
        with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
            probe.sendall(b"the trap works")
        eventually(lambda: bool(seen))
    assert [b"the trap works"] == seen
    assert not (tmp_path / "elsewhere").exists()

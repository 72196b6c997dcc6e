"""Where answers are measured: the servers, a model API and a worker in processes of their own, and what CPU each uses."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.answer_shelf import DIMENSIONS, MODEL
from infra.local.environment import child_environment
from infra.local.processes import LOOPBACK
from infra.local.servers import Servers

ROOT = Path(__file__).resolve().parents[1]
SLOTS = 64
"""Questions at once, for a worker process and for the bare client alike."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything runs."""

    servers: Servers
    model_port: int

    @property
    def model_url(self) -> str:
        """The model API."""
        return f"http://{LOOPBACK}:{self.model_port}/v1"


@contextmanager
def model_api() -> Iterator[int]:
    """A model API in a process of its own; its port."""
    command = [sys.executable, str(ROOT / "benchmarks" / "answer_model.py")]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()


@contextmanager
def worker(place: Place, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """One worker process of the answer pool, as anybody would start it."""
    settings = {
        "OPENAI_BASE_URL": place.model_url,
        "OPENAI_API_KEY": "k",
        "PENSTOCK_CHAT_MODEL": "local-chat",
        "PENSTOCK_EMBED_MODEL": MODEL,
        "PENSTOCK_EMBED_DIMENSIONS": str(DIMENSIONS),
        "PENSTOCK_OPS_PORT": "0",
        "PENSTOCK_HOME": tempfile.gettempdir(),
    }
    command = [sys.executable, "-m", "cli.main", "worker", "answer", "--concurrency", str(SLOTS), *options]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=child_environment(place.servers, extra=settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@dataclass(slots=True)
class Spent:
    """CPU seconds that the processes of a question use within the block."""

    servers: Servers
    worker: int
    _before: dict[str, float] = field(default_factory=dict)
    _used: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._before = self._look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._used = {name: now - self._before[name] for name, now in self._look().items()}

    def shown(self, count: int) -> str:
        """Milliseconds per question of each process, and of all."""
        each = {name: used / count * 1000 for name, used in self._used.items()}
        return (
            ", ".join(f"{name} {ms:.1f}" for name, ms in {**each, "all": sum(each.values())}.items()) + " ms"
        )

    def _look(self) -> dict[str, float]:
        this = psutil.Process()
        models = [
            child for child in this.children() if any("answer_model" in word for word in child.cmdline())
        ]
        return {
            "worker": _cpu(psutil.Process(self.worker)),
            "postgres": sum(map(_cpu, psutil.Process(self.servers.postgres_pid).children())),
            "redis": _cpu(psutil.Process(self.servers.valkey_pid)),
            "model": sum(map(_cpu, models)),
            "asker": _cpu(this),
        }


def _cpu(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0

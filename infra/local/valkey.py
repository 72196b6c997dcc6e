"""A folder becomes a running Valkey that writes everything to its append-only file, and is left clean again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import redis
import structlog
from redis.exceptions import RedisError

from infra.local import processes
from infra.local.folder import last_lines, write_private
from schemas.errors import Unavailable

START_PATIENCE = 120.0  # seconds; a long append-only file has to be read
LOG_LIMIT = 10_000_000
# What it says of a file that it will not load. A full disk or a refused right is none of these.
UNREADABLE = (
    b"bad file format reading the append only file",
    b"unexpected end of file reading the append only file",
    b"aof loading aborted",
    b"fatal aof manifest file error",
)
CONFIG = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir ./
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
loglevel notice
"""


@dataclass(slots=True)
class ValkeyServer:
    """One server on one folder."""

    program: Path
    folder: Path
    log: Path
    token: str
    password: str = field(repr=False)
    port: int
    version: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """How a process connects."""
        return f"redis://:{self.password}@{processes.LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Bring the server up, whatever state the last one left behind.

        An append-only file that the server cannot read is moved aside: Valkey holds only what PostgreSQL can tell it
        again, so an empty one that runs is better than a full one that does not.

        Raises:
            Unavailable: it does not come up; says what its log says.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for leftover in self.folder.glob("temp-*"):
            leftover.unlink()  # of a rewrite that a kill cut short
        moved = False
        for _ in range(5):
            self.port = processes.free_port(self.port)
            before = self._launch()
            if self._wait_until_ready():
                return
            if not processes.port_is_free(self.port):
                continue  # somebody else took it meanwhile
            if moved or not self._cannot_read_its_file(before):
                break
            self._move_aside()
            moved = True
        raise Unavailable(f"Valkey does not start: {last_lines(self.log)}", fix=f"see {self.log}")

    def stop(self) -> None:
        """Let it write its file to the disk and end. Calling it twice is fine."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(60.0)
        processes.stop_all(self.token, programs=("valkey-server",))
        if self.process is not None:
            self.process.wait()
            self.process = None

    def _launch(self) -> int:
        """Start the process. Returns where its part of the log begins."""
        config = CONFIG.format(host=processes.LOOPBACK, port=self.port, password=self.password)
        write_private(self.folder / "valkey.conf", config)  # not in the arguments: every user can read those
        with self.log.open("ab") as log:
            if log.tell() > LOG_LIMIT:
                log.truncate(0)
            before = log.seek(0, os.SEEK_END)
            self.process = subprocess.Popen(
                [self.program, "valkey.conf", "--proc-title-template", f"{{title}} {{listen-addr}} {self.token}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, umask=0o077,
                env={"LC_ALL": "C", "PATH": os.defpath}, start_new_session=True,
            )  # fmt: skip
        return before

    def _wait_until_ready(self) -> bool:
        """Whether it answers to our password; False when it has ended instead."""
        assert self.process is not None
        until = time.monotonic() + START_PATIENCE
        with redis.Redis(
            host=processes.LOOPBACK, port=self.port, password=self.password, socket_timeout=5.0
        ) as client:
            while self.process.poll() is None:
                with suppress(RedisError):  # not listening yet, or still reading its file
                    client.ping()
                    about = cast("dict[str, str]", client.info("server"))
                    self.version = str(about.get("valkey_version", about["redis_version"]))
                    return True
                if time.monotonic() > until:
                    raise Unavailable(
                        f"Valkey is not ready after {START_PATIENCE:.0f} s: {last_lines(self.log)}"
                    )
                time.sleep(0.01)
        return False

    def _cannot_read_its_file(self, before: int) -> bool:
        with self.log.open("rb") as log:
            log.seek(before)
            said = log.read().lower()
        return any(reason in said for reason in UNREADABLE)

    def _move_aside(self) -> None:
        aside = self.folder / f"appendonlydir.unreadable-{time.time_ns()}"
        (self.folder / "appendonlydir").rename(aside)
        structlog.get_logger(__name__).warning("local.valkey_file_moved_aside", path=str(aside))

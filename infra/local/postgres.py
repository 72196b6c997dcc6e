"""A data directory becomes a running PostgreSQL with its logins and its database, and is left clean again.

We launch the server ourselves: argument lists, so that a path may hold spaces; a session of its own, so that Ctrl-C in
a terminal reaches only the owner; the superuser only through a socket in a folder that nobody else can enter.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from infra.local import processes
from infra.local.binaries import PostgresInstall
from infra.local.folder import last_lines
from infra.local.privilege import Account, give
from schemas.errors import Unavailable

# Nothing of the caller's: PGPORT and its kin would reach the server.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
START_PATIENCE = 120.0  # seconds; recovery after a crash has to read the log
LOG_LIMIT = 10_000_000
SCRIPT = Path(__file__).with_name("cluster.sql")
SOCKET_PREFIX = "penstock-socket-"


@dataclass(slots=True)
class PostgresServer:
    """One server on one data directory."""

    install: PostgresInstall
    account: Account | None
    home: Path
    log: Path
    token: str
    owner_password: str = field(repr=False)
    app_password: str = field(repr=False)
    port: int
    socket_folder: Path
    temporary: bool = False
    """Its data goes with its owner: making it need not wait until the disk has it. Commits are synced all the same."""
    version: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home / "postgres"

    def start(self) -> None:
        """Bring the server up, whatever state the last one left behind.

        Raises:
            Unavailable: it does not come up; says what its log says.
        """
        if not (self.data / "PG_VERSION").exists():
            self._init()
        for _ in range(5):
            self.port = processes.free_port(self.port)
            self.launch()
            if self._wait_until_ready():
                break
            if processes.port_is_free(self.port):  # it was not the port that somebody else took meanwhile
                raise Unavailable(f"PostgreSQL does not start: {last_lines(self.log)}", fix=f"see {self.log}")
        else:
            raise Unavailable("PostgreSQL finds no free port", fix="see what listens on 127.0.0.1")
        self._make_sure_of_logins()

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, committed ones are on disk. Calling it twice is fine."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(60.0)
        processes.stop_all(self.token, programs=("postgres", "initdb"))
        if self.process is not None:
            self.process.wait()
            self.process = None

    def launch(self) -> None:
        """Start the process on existing data, with nothing waited for. Nobody else may run on this data."""
        # Proven by the owner's lock and the search for our token. A stale file would stop the server wherever its
        # pid has gone to another process of this user.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        self._ready_socket_folder()
        uid = None if self.account is None else self.account.uid
        settings = [part for name, value in self._settings().items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            if log.tell() > LOG_LIMIT:
                log.truncate(0)
            self.process = subprocess.Popen(
                [self.install.postgres, "-D", self.data, *settings],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home, env=ENVIRONMENT,
                start_new_session=True, umask=0o077,
                user=uid, group=uid, extra_groups=None if uid is None else [],
            )  # fmt: skip

    def tidy(self) -> None:
        """After a crash, let the server remove the shared memory it left: files in /dev/shm outlive the data."""
        if (self.data / "postmaster.pid").exists():
            self.port = processes.free_port(self.port)
            self.launch()
            self._wait_until_ready()
            self.stop()

    def url(self, role: str, password: str) -> str:
        """How a process logs in. No encryption on loopback: asking for it costs every connection a certificate store."""
        return f"postgresql://{role}:{password}@{processes.LOOPBACK}:{self.port}/penstock?sslmode=disable"

    def superuser_url(self) -> str:
        """How a test becomes superuser."""
        return f"postgresql://postgres@/penstock?host={self.socket_folder}&port={self.port}"

    def _settings(self) -> dict[str, str]:
        return {
            "cluster_name": self.token,  # shown in the title of every child: how leftovers are found
            "listen_addresses": processes.LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": "256MB",
            "maintenance_work_mem": "256MB",  # building an HNSW index in memory
            "max_wal_size": "2GB",
            "max_wal_senders": "0",
            "max_logical_replication_workers": "0",
            "dynamic_shared_memory_type": _dynamic_shared_memory(),
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # Promise P8: what a client did wrong is told to the client; a statement or a row may hold its text.
            "log_min_messages": "log",
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
            "log_checkpoints": "off",
            "log_autovacuum_min_duration": "-1",
        }

    def _init(self) -> None:
        """Make the data directory beside its place and move it there whole: a crash leaves no half of one."""
        for partial in self.home.glob("postgres.new-*"):
            shutil.rmtree(partial)
        fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.home))
        uid = None if self.account is None else self.account.initdb_uid
        if uid is not None:
            give(fresh, uid)
        command = [
            str(self.install.initdb), "-D", str(fresh), "--username=postgres", "--encoding=UTF8", "--locale=C",
            # PostgreSQL's own rules for UTF-8: the same on every system, whatever its C library knows.
            "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            # The socket's folder admits only our user; everybody else comes by TCP with a password.
            "--auth-local=trust", "--auth-host=scram-sha-256",
            "--set", f"cluster_name={self.token}", *(["--no-sync"] if self.temporary else []),
        ]  # fmt: skip
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.home, env=ENVIRONMENT,
            check=False, start_new_session=True,
            user=uid, group=uid, extra_groups=None if uid is None else [],
        )  # fmt: skip
        if done.returncode != 0:
            raise Unavailable(f"initdb failed: {' '.join(done.stderr.split()[-60:])}")
        if self.account is not None:
            give(fresh, self.account.uid)
        fresh.rename(self.data)

    def _wait_until_ready(self) -> bool:
        """Whether it accepts connections; False when it has ended instead."""
        assert self.process is not None
        until = time.monotonic() + START_PATIENCE
        while self.process.poll() is None:
            with suppress(FileNotFoundError):
                lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready":
                    return True
            if time.monotonic() > until:
                raise Unavailable(
                    f"PostgreSQL is not ready after {START_PATIENCE:.0f} s: {last_lines(self.log)}"
                )
            time.sleep(0.01)
        return False

    def _make_sure_of_logins(self) -> None:
        passwords = {
            "PENSTOCK_OWNER_PASSWORD": self.owner_password,
            "PENSTOCK_APP_PASSWORD": self.app_password,
        }
        done = subprocess.run(
            [self.install.psql, "-X", "-q", "-A", "-t", "-h", self.socket_folder, "-p", str(self.port),
             "-U", "postgres", "-d", "postgres", "-f", SCRIPT],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.home, check=False,
            env=ENVIRONMENT | passwords,
        )  # fmt: skip
        if done.returncode != 0:
            raise Unavailable(f"PostgreSQL refuses its set-up: {' '.join(done.stderr.split()[-60:])}")
        self.version = done.stdout.split()[-1]

    def _ready_socket_folder(self) -> None:
        self.socket_folder.mkdir(mode=0o700, exist_ok=True)
        if self.account is not None:
            give(self.socket_folder, self.account.uid)


def make_socket_folder() -> Path:
    """A folder whose path is short enough for a socket (103 bytes on macOS) and that only our user can enter."""
    short = Path("/tmp")  # noqa: S108 - mkdtemp makes a private folder in it
    base = short if short.is_dir() and os.access(short, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=base.resolve()))


def remove_socket_folder(path: Path) -> None:
    """Remove a folder that `make_socket_folder` has made, if it is still there."""
    if path.name.startswith(SOCKET_PREFIX):
        shutil.rmtree(path, ignore_errors=True)


def _dynamic_shared_memory() -> str:
    """A container's /dev/shm is often 64 MB, too little to build an index in parallel; files do it then."""
    try:
        room = os.statvfs("/dev/shm")  # noqa: S108 - only asked for its size
    except FileNotFoundError:
        return "posix"
    return "posix" if room.f_bavail * room.f_frsize >= 512 * 1024 * 1024 else "mmap"

"""A root passes through here and has PostgreSQL and Valkey for as long as one process, the owner, holds them.

async with LocalStack.start(root) as stack:
    stack.servers.database_url
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import structlog

from infra.local import processes
from infra.local.binaries import postgres_install, valkey_server
from infra.local.down import clear, erase, stop, wipe
from infra.local.folder import Folder
from infra.local.guard import Guard
from infra.local.lock import OwnerLock
from infra.local.postgres import PostgresServer, make_socket_folder, remove_socket_folder
from infra.local.privilege import outside_home, server_account, shared_install
from infra.local.servers import Servers
from infra.local.valkey import ValkeyServer
from schemas.errors import Misconfigured

__all__ = ["LocalStack", "find_running", "stop", "wipe"]


class LocalStack:
    """The two servers of one root, in the hands of their owner."""

    def __init__(self, folder: Folder, postgres: PostgresServer, valkey: ValkeyServer) -> None:
        """Made by `start`."""
        self.folder = folder
        self.postgres = postgres
        self.valkey = valkey

    @classmethod
    @asynccontextmanager
    async def start(
        cls, root: Path, *, what: str = "a local stack", wipe_at_end: bool = False
    ) -> AsyncIterator[LocalStack]:
        """Own the servers of this root until the block ends.

        Args:
            root: the directory that holds `.penstock`.
            what: what we are, for the message to a second owner.
            wipe_at_end: remove everything at the end, also when we are killed: for tests.

        Raises:
            Conflict: another process owns them; names it.
            Misconfigured: the wheels are missing, or the directory is not ours.
            Unavailable: a server does not start; says what its log says.
        """
        with ExitStack() as held:
            # Leaving waits for the thread: a cancelled start must not leave a server that nobody will stop.
            with ThreadPoolExecutor(max_workers=1) as thread:
                loop = asyncio.get_running_loop()
                stack = await loop.run_in_executor(thread, cls.open, root, what, wipe_at_end, held)
            yield stack

    @classmethod
    def open(cls, root: Path, what: str, wipe_at_end: bool, held: ExitStack) -> LocalStack:
        """Start without an event loop; whatever has to be undone is put on `held`."""
        started = time.monotonic()
        folder = Folder.at(root)
        if not folder.path.parent.is_dir():
            raise Misconfigured(f"there is no directory {folder.path.parent}")
        held.callback(OwnerLock.take(folder, what).release)
        clear(folder)
        held.callback(Guard(folder, wipe=wipe_at_end).dismiss)
        if wipe_at_end:
            held.callback(erase, folder)
        stack = cls._prepare(folder, temporary=wipe_at_end)
        held.callback(stack.close)
        _side_by_side(stack.postgres.start, stack.valkey.start)
        stack.publish()
        structlog.get_logger(__name__).info(
            "local.started", path=str(folder.path), seconds=round(time.monotonic() - started, 2),
            postgres=stack.postgres.version, valkey=stack.valkey.version,
        )  # fmt: skip
        return stack

    @classmethod
    def _prepare(cls, folder: Folder, *, temporary: bool) -> LocalStack:
        """Settle all that is on disk and in other hands before a server starts."""
        account, install, program = server_account(), postgres_install(), valkey_server()
        if account is not None:
            install = shared_install(install, account)
        home = folder.path if account is None else outside_home(folder)
        sockets = make_socket_folder()
        state = folder.keep_state(socket_folder=str(sockets))
        postgres = PostgresServer(
            install, account, home,
            folder.log("postgres"), folder.token, state.owner_password, state.app_password,
            processes.free_port(state.postgres_port), sockets, temporary,
        )  # fmt: skip
        port = processes.free_port(state.valkey_port, avoid=[postgres.port])
        valkey = ValkeyServer(
            program, folder.valkey, folder.log("valkey"), folder.token, state.valkey_password, port
        )
        return cls(folder, postgres, valkey)

    @property
    def servers(self) -> Servers:
        """Where they are now."""
        postgres, valkey = self.postgres, self.valkey
        assert postgres.process is not None
        assert valkey.process is not None
        return Servers(
            database_url=postgres.url("penstock_app", postgres.app_password),
            database_owner_url=postgres.url("penstock_owner", postgres.owner_password),
            redis_url=valkey.url,
            superuser_url=postgres.superuser_url(),
            postgres_pid=postgres.process.pid,
            postgres_port=postgres.port,
            postgres_version=postgres.version,
            valkey_pid=valkey.process.pid,
            valkey_port=valkey.port,
            valkey_version=valkey.version,
            owner_pid=os.getpid(),
        )

    async def restart_postgres(self) -> None:
        """Stop PostgreSQL, if it still runs, and start it again: same port, same passwords."""
        await asyncio.to_thread(self._restart, self.postgres)

    async def restart_valkey(self) -> None:
        """Stop Valkey, if it still runs, and start it again: same port, same password."""
        await asyncio.to_thread(self._restart, self.valkey)

    def _restart(self, server: PostgresServer | ValkeyServer) -> None:
        server.stop()
        server.start()
        self.publish()

    def publish(self) -> None:
        """Let other processes of our user find the servers."""
        self.folder.keep_state(postgres_port=self.postgres.port, valkey_port=self.valkey.port)
        self.servers.write(self.folder)

    def close(self) -> None:
        """Stop both servers. Calling it twice is fine."""
        self.folder.servers.unlink(missing_ok=True)  # first: nobody may come any more
        try:
            _side_by_side(self.postgres.stop, self.valkey.stop)
        finally:
            remove_socket_folder(self.postgres.socket_folder)


def find_running(root: Path) -> Servers | None:
    """The servers of this root, if both of them really run and listen now.

    Raises:
        Misconfigured: they belong to another user.
    """
    folder = Folder.at(root)
    servers = Servers.read(folder)
    if servers is None:
        return None
    for pid, port in (servers.postgres_pid, servers.postgres_port), (servers.valkey_pid, servers.valkey_port):
        if not processes.is_ours(pid, folder.token) or not processes.listens(port):
            return None
    return servers


def _side_by_side(*steps: Callable[[], None]) -> None:
    """Do all at once, wait for all, then fail with the first failure."""
    with ThreadPoolExecutor(max_workers=len(steps)) as pool:
        running = [pool.submit(step) for step in steps]
    for step in running:
        step.result()

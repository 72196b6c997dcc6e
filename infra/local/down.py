"""A root, with servers running in it or not, whose owner lives or not, passes through here and is left with none."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from infra.local import processes
from infra.local.binaries import postgres_install
from infra.local.folder import Folder
from infra.local.lock import OwnerLock, current_holder
from infra.local.postgres import PostgresServer, make_socket_folder, remove_socket_folder
from infra.local.privilege import find_home, other_claim, server_account, shared_install
from schemas.errors import Conflict, PenstockError

PATIENCE = 60.0  # seconds that an owner may take to stop its servers and itself


def stop(root: Path) -> bool:
    """Stop what runs for this root. Calling it again, or where nothing runs, is fine.

    A living owner is asked to stop everything of its own (SIGTERM); after a dead one we stop the servers.

    Returns:
        Whether anything had to be stopped.

    Raises:
        Conflict: the owner does not stop; names it.
        Misconfigured: the folder belongs to another user.
    """
    folder = Folder.at(root)
    if not folder.exists():  # somebody has removed it under its servers, perhaps
        return _stop_servers(folder)
    asked = _ask_owner(folder)
    return _as_holder(folder, "penstock down", clear) or asked


def wipe(root: Path) -> bool:
    """Stop what runs for this root and remove its folder, with all data. Returns whether there was anything.

    Raises:
        Conflict: the owner does not stop; names it.
        Misconfigured: the folder belongs to another user.
    """
    folder = Folder.at(root)
    if not folder.exists():
        stopped = _stop_servers(folder)
        return _erase_outside(folder) or stopped
    _ask_owner(folder)
    return _as_holder(folder, "penstock down --wipe", _clear_and_erase)


def after_death(folder: Folder, *, wipe: bool) -> None:
    """What the guard does once the owner is dead.

    Raises:
        Conflict: a new owner was quicker; it has cleared up first.
    """
    _as_holder(folder, "the guard of a dead owner", _clear_and_erase if wipe else clear, patience=0.0)


def _as_holder(
    folder: Folder, what: str, step: Callable[[Folder], bool], *, patience: float = PATIENCE
) -> bool:
    try:
        lock = OwnerLock.take(folder, what, stopping=True, patience=patience)
    except FileNotFoundError:  # somebody else has wiped it just now
        return False
    try:
        return step(folder)
    finally:
        lock.release()


def _clear_and_erase(folder: Folder) -> bool:
    clear(folder)
    return erase(folder)


def clear(folder: Folder) -> bool:
    """Stop the servers that carry this folder's name and remove what points to them. Only for the lock's holder."""
    folder.servers.unlink(missing_ok=True)
    return _stop_servers(folder)


def _stop_servers(folder: Folder) -> bool:
    known = folder.load_state().socket_folder
    sockets = {Path(argument) for argument in processes.arguments(folder.token, "unix_socket_directories=")}
    stopped = processes.stop_all(folder.token)
    for path in sockets if known is None else sockets | {Path(known)}:
        remove_socket_folder(path)
    return stopped > 0


def erase(folder: Folder) -> bool:
    """Remove the folder and the data that lies outside of it. Only for the lock's holder, with no server running."""
    _tidy(folder, find_home(folder) or folder.path)
    _erase_outside(folder)
    for entry in folder.path.iterdir():
        if entry == folder.lock:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    folder.lock.unlink()  # last: until now nobody else could begin here
    with suppress(OSError):  # somebody who waited for the lock has begun anew
        folder.path.rmdir()
    return True


def _erase_outside(folder: Folder) -> bool:
    home = find_home(folder)
    if home is None or other_claim(home, folder) is not None:
        return False
    shutil.rmtree(home)
    return True


def _ask_owner(folder: Folder) -> bool:
    holder = current_holder(folder)
    if holder is None or holder.stopping or not holder.lives():
        return False
    if holder.pid == os.getpid():
        raise Conflict("this process owns the servers", fix="leave the context of LocalStack.start")
    with suppress(ProcessLookupError):
        os.kill(holder.pid, signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    while current_holder(folder) == holder and time.monotonic() < until:
        time.sleep(0.02)
    return True


def _tidy(folder: Folder, home: Path) -> None:
    """Where PostgreSQL was killed, give it the chance to free its shared memory. Wiping goes on if it cannot."""
    if not (home / "postgres" / "postmaster.pid").exists():
        return
    account, install, state = server_account(), postgres_install(), folder.load_state()
    sockets = make_socket_folder()
    server = PostgresServer(
        shared_install(install, account) if account else install, account, home, folder.log("postgres"),
        folder.token, state.owner_password, state.app_password, state.postgres_port, sockets,
    )  # fmt: skip
    try:
        server.tidy()
    except (PenstockError, OSError) as error:
        processes.stop_all(folder.token)
        import structlog  # noqa: PLC0415 - half of the guard's start-up, for a line it hardly ever writes

        structlog.get_logger(__name__).warning("local.shared_memory_left", error=str(error))
    finally:
        remove_socket_folder(sockets)

"""A folder's token becomes the server processes that carry it, living ones only, to be asked to stop or made to.

Pids are reused and pid files outlive their process. Every server of ours carries its folder's token in its command
line, which every user may read, in a container too; so that is what identifies it.
"""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from schemas.errors import Unavailable

PROGRAMS = ("postgres", "valkey-server", "initdb")
LOOPBACK = "127.0.0.1"


def find(token: str) -> list[psutil.Process]:
    """All living server processes of one folder, children included."""
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] in PROGRAMS and any(token in part for part in process.info["cmdline"] or ())
    ]


def arguments(token: str, prefix: str) -> list[str]:
    """What follows a prefix in the command lines of one folder's servers."""
    return [
        part.removeprefix(prefix)
        for process in find(token)
        for part in process.info["cmdline"]
        if part.startswith(prefix)
    ]


def is_ours(pid: int, token: str) -> bool:
    """Whether this pid is, now, a server of the folder with this token."""
    try:
        process = psutil.Process(pid)
        return process.name() in PROGRAMS and any(token in part for part in process.cmdline())
    except psutil.Error:
        return False


def stop_all(token: str, *, programs: Sequence[str] = PROGRAMS, patience: float = 60.0) -> int:
    """Stop every server of one folder: gently, then firmly. Returns how many processes there were.

    PostgreSQL's fast shutdown and Valkey's SIGTERM keep all that was committed; so does the harder way, through
    recovery at the next start.
    """
    found = [process for process in find(token) if process.info["name"] in programs]
    asked = [process for process in found if _ask(process)]
    # Children without a postmaster end by themselves as soon as they notice.
    left = _wait_for(found, patience if asked else 3.0)
    for harder, wait in ((signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(harder)
        left = _wait_for(left, wait)
    if left:
        raise Unavailable(
            f"processes {[process.pid for process in left]} of {token} do not end", fix="end them by hand"
        )
    return len(found)


def _ask(process: psutil.Process) -> bool:
    """Send the signal that asks a server to finish; a child of PostgreSQL is not asked, its parent is."""
    name, arguments = process.info["name"], process.info["cmdline"]
    if name == "postgres" and "-D" not in arguments:
        return False
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
    return True


def _wait_for(ending: Sequence[psutil.Process], patience: float) -> list[psutil.Process]:
    """Those that have not ended in time. One that its parent has not collected has ended: a container may never do so."""
    until = time.monotonic() + patience
    left = list(ending)
    while left := [process for process in left if _lives(process)]:
        if time.monotonic() > until:
            break
        time.sleep(0.01)
    return left


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for_end(pid: int, *, patience: float) -> bool:
    """Whether any one process has ended in time, collected by its parent or not."""
    try:
        return not _wait_for([psutil.Process(pid)], patience)
    except psutil.NoSuchProcess:
        return True


def free_port(preferred: int, *, avoid: Sequence[int] = ()) -> int:
    """A loopback port that nobody listens on: the preferred one if it is free.

    Others are drawn below the range from which systems give ports to outgoing connections, so that a server that
    restarts finds its old port free.
    """
    if preferred and preferred not in avoid and port_is_free(preferred):
        return preferred
    drawn = (random.randint(20_000, 32_000) for _ in range(200))  # noqa: S311 - a port is not a secret
    for port in drawn:
        if port not in avoid and port_is_free(port):
            return port
    raise Unavailable("no free port on 127.0.0.1 between 20000 and 32000")


def port_is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def listens(port: int) -> bool:
    """Whether somebody accepts connections there now."""
    with socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex((LOOPBACK, port)) == 0

"""A folder passes through here to one owner at a time; a second one is told who has it.

The kernel drops the lock with its holder, however that dies, so what is written inside is true while the lock is held.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from infra.local.folder import Folder
from schemas.errors import Conflict


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the lock."""

    pid: int
    started: float
    what: str
    stopping: bool = False

    def lives(self) -> bool:
        """Whether the process that wrote this is still the one with this pid, and not a dying one.

        The threads of a killed process may hold its lock for some moments after the process itself has ended.
        """
        try:
            process = psutil.Process(self.pid)
            started: float = process.create_time()
            return abs(started - self.started) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class OwnerLock:
    """An flock on `.penstock/lock`, released by `release` or by the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Folder, what: str, *, stopping: bool = False, patience: float = 0.0) -> OwnerLock:
        """Become the owner.

        Args:
            folder: whose lock.
            what: what we are, in words that help the one who is refused.
            stopping: we only clear up; others may wait for us instead of giving up.
            patience: seconds to wait for a living holder that is not stopping.

        Raises:
            Conflict: somebody else is the owner; names it.
            FileNotFoundError: we only clear up, and there is no folder (any more).
        """
        ourselves = Holder(os.getpid(), psutil.Process().create_time(), what, stopping)
        started = time.monotonic()
        while True:
            lock = cls._try(folder, ourselves)
            if lock is not None:
                return lock
            holder = current_holder(folder)
            waited = time.monotonic() - started
            in_a_moment = holder is None or holder.stopping or not holder.lives()
            limit = max(patience, 60.0) if in_a_moment else patience
            if waited >= limit:
                who = "another process" if holder is None else f"{holder.what} (pid {holder.pid})"
                raise Conflict(
                    f"{who} already runs the servers in {folder.path}",
                    fix="use that one, or stop it with `penstock down`",
                )
            time.sleep(0.02)

    @classmethod
    def _try(cls, folder: Folder, holder: Holder) -> OwnerLock | None:
        if not holder.stopping:
            folder.create()
        descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if not _still_there(descriptor, folder):
            os.close(descriptor)  # wiped between our open and our lock: this file is nobody's any more
            return None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let the next one in. Calling it twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def current_holder(folder: Folder) -> Holder | None:
    """Who holds the lock now, or None when nobody does (or it is about to write its name)."""
    try:
        descriptor = os.open(folder.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Holder | None:
    try:
        text: dict[str, Any] = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(**text)
    except (ValueError, TypeError):
        return None


def _still_there(descriptor: int, folder: Folder) -> bool:
    try:
        return os.fstat(descriptor).st_ino == folder.lock.stat().st_ino
    except FileNotFoundError:
        return False

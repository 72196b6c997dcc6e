"""The end of an owner, however it comes, passes through here as the end of a pipe, and the servers are stopped.

    python -m infra.local.guard FOLDER OWNER-PID [--wipe]

A server cannot ask the kernel for this itself: the signal on a parent's death exists only on Linux, is tied to the
thread that started it and is lost with a change of user.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.local.down import after_death
from infra.local.folder import Folder
from infra.local.processes import wait_for_end
from schemas.errors import Conflict

DISMISSED = b"dismissed"


class Guard:
    """The owner's end."""

    def __init__(self, folder: Folder, *, wipe: bool) -> None:
        """Start the process that waits for our death. It reads nothing but the end of this pipe."""
        with folder.log("guard").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, folder.path, str(os.getpid()), *(["--wipe"] if wipe else [])],
                stdin=subprocess.PIPE, stdout=log, stderr=log,
                cwd=Path(__file__).parents[2],  # where this package can be imported from
                start_new_session=True,
            )  # fmt: skip

    def dismiss(self) -> None:
        """We have stopped the servers ourselves. Calling it after the guard was killed is fine."""
        try:
            self._process.communicate(DISMISSED, timeout=30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Wait for the owner's end; then do what it did not."""
    if sys.stdin.buffer.read() == DISMISSED:
        return
    # A dying process loses its pipes before its locks: only when it is dead has it left both.
    wait_for_end(int(sys.argv[2]), patience=30.0)
    try:
        after_death(Folder(Path(sys.argv[1])), wipe="--wipe" in sys.argv[3:])
    except Conflict as error:
        sys.stderr.write(f"left to the new owner: {error}\n")


if __name__ == "__main__":
    main()

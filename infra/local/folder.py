"""A path becomes the `.penstock` folder: private, ignored by git, with the few files that outlive a process.

Everything in `state.json` can be made anew, so a lost or damaged one is not an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import Misconfigured

NAME = ".penstock"


@dataclass(frozen=True, slots=True)
class State:
    """What a restart keeps, so that a URL somebody has noted stays valid, and where things lie outside."""

    owner_password: str = dataclasses.field(repr=False)
    app_password: str = dataclasses.field(repr=False)
    valkey_password: str = dataclasses.field(repr=False)
    postgres_port: int = 0
    valkey_port: int = 0
    postgres_home: str | None = None
    socket_folder: str | None = None

    @classmethod
    def new(cls) -> State:
        """Fresh passwords, nothing else known. The alphabet needs no quoting in a URL or a config file."""
        return cls(secrets.token_hex(24), secrets.token_hex(24), secrets.token_hex(24))


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one stack."""

    path: Path

    @classmethod
    def at(cls, root: Path) -> Folder:
        """The folder of the directory `root`, whether it exists or not; `root` may also name the folder itself."""
        root = root.expanduser()
        return cls((root if root.name == NAME else root / NAME).resolve())

    @property
    def lock(self) -> Path:
        """Held by the owner for as long as it lives."""
        return self.path / "lock"

    @property
    def servers(self) -> Path:
        """Where other processes find the servers."""
        return self.path / "servers.json"

    @property
    def valkey(self) -> Path:
        """Valkey's data and configuration."""
        return self.path / "valkey"

    @property
    def token(self) -> str:
        """The name that our servers carry in their command line: how they are found without trusting a pid."""
        return f"penstock-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]}"

    def exists(self) -> bool:
        """Whether there is such a folder, and whether it is ours to read.

        Raises:
            Misconfigured: it belongs to somebody else.
        """
        try:
            owner = self.path.stat().st_uid
        except FileNotFoundError:
            return False
        if owner != os.geteuid():
            raise Misconfigured(
                f"{self.path} belongs to the user with id {owner}, we run as {os.geteuid()}",
                fix="run as that user, or use another directory",
            )
        return True

    def create(self) -> None:
        """Make the folder if it is not there, readable by us alone, and keep it out of git."""
        if not self.exists():
            self.path.mkdir(mode=0o700, exist_ok=True)
        self.path.chmod(0o700)
        ignore = self.path / ".gitignore"
        if not ignore.exists():
            write_private(ignore, "*\n")

    def log(self, server: str) -> Path:
        """The log file of one server."""
        return self.path / f"{server}.log"

    def load_state(self) -> State:
        """What the last start has kept; fresh where nothing usable is there."""
        known = {field.name for field in dataclasses.fields(State)}
        try:
            kept: dict[str, Any] = json.loads((self.path / "state.json").read_bytes())
            return State(**{name: value for name, value in kept.items() if name in known})
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return State.new()

    def keep_state(self, **changes: str | int | None) -> State:
        """Change some of the state, on disk before this returns."""
        state = dataclasses.replace(self.load_state(), **changes)  # type: ignore[arg-type]  # names are checked by replace
        write_private(self.path / "state.json", json.dumps(dataclasses.asdict(state), indent=1))
        return state


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; a reader sees the old text or the new, and nobody else sees either."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def last_lines(path: Path, count: int = 5) -> str:
    """The end of a log, for an error message."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return "(no log)"
    return " | ".join(line.strip() for line in lines[-count:]) or "(empty log)"

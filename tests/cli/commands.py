"""Runs the real `penstock` as a process, in a directory of its own and with the environment that a test gives it.

Half of a command's time is imports, and the tests run a hundred commands: each is forked from a process that has
imported them already. That commands start from nothing is shown by tests/deploy, the tutorial and `up`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.environment import hostile_names

PATIENCE = 100.0
IMPORTED = (
    "__main__",
    "cli.dead_stores",
    "cli.main",
    "infra.bus",
    "infra.erasure",
    "infra.llm",
    "infra.log",
    "infra.maintain",
    "infra.ops",
    "infra.tenants",
    "rich.markdown",
    "rich.table",
    "tests.cli.commands",
    "uvloop",
    "workers.engine.deadletters",
    "workers.main",
)


def bare_environment(**extra: str) -> dict[str, str]:
    """Ours without any setting of Penstock's; tables are as wide as they like."""
    kept = {name: value for name, value in os.environ.items() if name not in hostile_names(os.environ)}
    return {**kept, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **extra}


@dataclass(frozen=True, slots=True)
class Penstock:
    """One place to run commands in."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str, expect: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; it must end with this exit code."""
        done = _run(self.folder, {**self.environment, **extra}, arguments)
        assert "Traceback" not in done.stderr, done.stderr
        assert expect == done.returncode, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, expect: int = 0, **extra: str) -> Any:
        """What a command prints with --json: one JSON value and nothing beside it."""
        return json.loads(self.run(*arguments, "--json", expect=expect, **extra).stdout)


def _run(
    folder: Path, environment: Mapping[str, str], arguments: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(list(IMPORTED))
    with tempfile.NamedTemporaryFile() as stdout, tempfile.NamedTemporaryFile() as stderr:
        written = (stdout.name, stderr.name)
        process = forks.Process(target=_be_the_command, args=(folder, environment, arguments, written))
        process.start()
        process.join(PATIENCE)
        code = process.exitcode
        process.kill()
        process.join()
        process.close()
        if code is None:
            raise subprocess.TimeoutExpired(arguments, PATIENCE, stdout.read(), stderr.read())
        return subprocess.CompletedProcess(arguments, code, stdout.read().decode(), stderr.read().decode())


def _be_the_command(
    folder: Path, environment: Mapping[str, str], arguments: Sequence[str], written: Sequence[str]
) -> None:
    """In the forked process: what `python -m cli.main` finds, then the same function that it calls."""
    from cli.main import main  # noqa: PLC0415 - not in the test's own process

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate((os.devnull, *written)):
        descriptor = os.open(path, os.O_RDWR)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["penstock", *arguments]
    main()

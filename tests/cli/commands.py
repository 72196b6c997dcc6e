"""Runs the real `penstock` as a process, in a directory of its own and with the environment that a test gives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.environment import hostile_names


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
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=self.folder,
            env={**self.environment, **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert expect == done.returncode, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, expect: int = 0, **extra: str) -> Any:
        """What a command prints with --json: one JSON value and nothing beside it."""
        return json.loads(self.run(*arguments, "--json", expect=expect, **extra).stdout)

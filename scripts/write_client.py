"""The asynchronous half of penstock-client becomes its synchronous half here; a test fails when it is not what this writes.

Run it with ``PYTHONPATH=. .venv/bin/python scripts/write_client.py``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "clients" / "python" / "penstock_client"
CONFIG = ROOT / "pyproject.toml"
INIT = '"""`Client`: the files of `aio` without waiting, written by scripts/write_client.py."""\n'
WORDS = (
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bhttpx2\.Async(\w+)", r"httpx2.\1"),
    (r"\bAsync(Client|Transport|Publishing|Knowledge|Questions|Learning|Hooks)\b", r"\1"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\baread\b", "read"),
    (r"\baiter_lines\b", "iter_lines"),
    (r"^import asyncio\n(import time\n)?", "import time\n"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bpenstock_client\.aio\b", "penstock_client.sync"),
    (r"The asynchronous client", "The synchronous client"),
)


def synchronous(text: str) -> str:
    """A module without waiting."""
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def write(folder: Path) -> None:
    """Write the synchronous half into a folder, in the house's format."""
    folder.mkdir(exist_ok=True)
    for path in sorted((PACKAGE / "aio").glob("*.py")):
        text = INIT if path.name == "__init__.py" else synchronous(path.read_text(encoding="utf-8"))
        (folder / path.name).write_text(text, encoding="utf-8")
    for step in (("check", "--fix", "--select", "I"), ("format",)):
        command = [sys.executable, "-m", "ruff", step[0], "--quiet", "--config", str(CONFIG), *step[1:]]
        subprocess.run([*command, str(folder)], check=True)  # noqa: S603 - our own arguments


if __name__ == "__main__":
    write(PACKAGE / "sync")

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from producers.gateway.server import Serving
from tests.producers.clients import Client

CONFIG = Path(__file__).parents[1] / "fuzz" / "schemathesis.toml"
LONG = ("--max-examples", "100", "--max-time", "450", "--phases", "examples,coverage,fuzzing,stateful")
# Read when the file is: while tests run, nothing of PENSTOCK_ is left in the environment.
FORM = os.environ.get("PENSTOCK_FUZZ", "short")
SHORT = ("--max-examples", "1", "--phases", "examples,fuzzing")


@pytest.mark.timeout(1800)
async def test_the_api_is_as_its_document_says(gateway: Serving, client: Client, tmp_path: Path) -> None:
    """Schemathesis finds no 5xx, no undocumented status, no answer and no header that is not as described.

    `make fuzz` runs the long form (PENSTOCK_FUZZ=long).
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(CONFIG),
        "run",
        f"{gateway.url}/openapi.json",
        "--header",
        f"Authorization: Bearer {client.key}",
        "--checks",
        "all",
        "--no-color",
        *(LONG if FORM == "long" else SHORT),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode(errors="replace")[-20000:]

"""The commands of the tutorial and of other pages, taken from the page and run in order on one real `penstock up`."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import bare_environment
from tests.cli.test_up_down import running

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    """The `sh` blocks of a page, in order; blocks without that word are for people."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where `penstock up` runs as in a checkout; each page has tenants, collections and datasets of its own."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "README.md").write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    with running(folder):
        yield folder


def run_as_written(folder: Path, block: str) -> str:
    """Run a block as a reader's shell does; it must succeed. Returns what it printed."""
    done = subprocess.run(
        ["sh", "-eu", "-c", block], cwd=folder, env=bare_environment(), capture_output=True, text=True, check=False,
        timeout=200,
    )  # fmt: skip
    assert 0 == done.returncode, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(400)
def test_every_command_of_the_tutorial_works(serving: Path) -> None:
    """Rung by rung, in one directory: rung 3 answers from the document, rung 4 from a tuned model; then all are compared."""
    rungs = blocks("docs/tutorial.md")
    assert 5 == len(rungs)
    said = [run_as_written(serving, rung) for rung in rungs]
    assert "nine" not in said[0]
    assert "short" in said[1]
    # Once in the passage that was found, and again in the answer.
    assert said[2].count("nine") >= 2
    assert "workshop.txt" in said[2]
    assert "promoted" in said[3]
    # The tuned model answers in its own words, which stand in no document.
    assert "except on Saturdays" in said[3]
    assert all(f"\n{rung} " in f"\n{said[4]}" for rung in ("template", "few-shot", "retrieval", "tuned")), (
        said[4]
    )
    assert "\nuse " in said[4]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_the_commands_of_a_page_work(serving: Path, page: str) -> None:
    """What newcomers and operators copy runs as it stands; `make …`, `up` and what waits for ever are left out."""
    ours = [
        "\n".join(line for line in block.splitlines() if "webhooks listen" not in line)
        for block in blocks(page)
        if not block.startswith("make ") and block.strip() != ".venv/bin/penstock up"
    ]
    assert ours
    for block in ours:
        said = run_as_written(serving, block)
        assert "application/problem+json" not in said
        assert '"rejected"' not in said

"""The docs say what the code does."""

import re
from pathlib import Path

import pytest

from scripts.write_docs import PAGES

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_written_page_is_what_the_code_says(name: str) -> None:
    """States and settings in the docs are those of the code; `scripts/write_docs.py` writes them anew."""
    assert PAGES[name]() == (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_links_between_pages_lead_somewhere() -> None:
    """A relative link points to a file that exists."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    links = [(page, target) for page in pages for target in LINK.findall(page.read_text(encoding="utf-8"))]
    broken = [f"{page.name} → {target}" for page, target in links if not (page.parent / target).exists()]
    assert [] == broken


def test_the_readme_is_short() -> None:
    """A newcomer reads 120 lines at most."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120

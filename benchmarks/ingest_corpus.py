"""Real text that every Python carries becomes documents, their chunks, and a ready-made vector for each chunk.

Language reference (`pydoc_data.topics`), docstrings of the standard library, and the METADATA of installed packages.
Vectors of 256 dimensions are those of the local embedding model; wider ones are the same, turned into a wider space
with a little noise, so that neighbours stay neighbours.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from numpy.typing import NDArray

from infra.local.model.vectors import Encoder, unit
from workers.ingest.chunk import Chunking
from workers.ingest.media import source
from workers.ingest.prepare import prepare_here

LONGEST = 12_000
"""Characters; a longer text becomes several documents, as a manual becomes pages."""
NOISE = 0.2


@dataclass(frozen=True, slots=True)
class Document:
    """One text with what our chunker makes of it."""

    name: str
    text: str
    chunks: tuple[str, ...]


def texts() -> Iterator[tuple[str, str]]:
    """Names and texts, in a fixed order."""
    for name, text in sorted(topics.items()):
        yield f"reference/{name}", text
    for one in sorted(distributions(), key=lambda one: one.metadata["Name"] or ""):
        yield (
            f"package/{one.metadata['Name']}",
            str(one.metadata["Description"] or one.read_text("METADATA") or ""),
        )
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.glob("**/*.py")):
        if not {"test", "site-packages", "idlelib"} & set(path.relative_to(library).parts):
            yield f"library/{path.relative_to(library)}", _docstrings(path)


def _docstrings(path: Path) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return ""
    parts: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            said = ast.get_docstring(node)
            if said:
                parts.append(f"{getattr(node, 'name', path.stem)}\n\n{said}")
    return "\n\n".join(parts)


def documents(chunks: int) -> list[Document]:
    """Documents with so many different chunks in all, or a few more."""
    found: list[Document] = []
    seen: set[str] = set()
    for name, text in texts():
        for number, at in enumerate(range(0, len(text), LONGEST)):
            part = text[at : at + LONGEST].strip()
            if len(part) < 200:
                continue
            cut = tuple(one.text for one in prepare_here(source(part, "text/plain"), Chunking()).chunks)
            if seen.isdisjoint(cut) and len(set(cut)) == len(cut):
                seen.update(cut)
                found.append(Document(f"{name}#{number}", part, cut))
            if len(seen) >= chunks:
                return found
    return found


def vectors(texts: list[str], dimensions: int) -> NDArray[np.float32]:
    """float32[n, dimensions], unit length; the same for the same texts."""
    base = Encoder.load().embed(texts)
    if dimensions == base.shape[1]:
        return base
    dice = np.random.default_rng(7)
    turn = dice.normal(size=(base.shape[1], dimensions)).astype(np.float32)
    noise = unit(dice.normal(size=(len(texts), dimensions)).astype(np.float32))
    return unit(np.asarray(unit(base @ turn) + NOISE * noise, dtype=np.float32))

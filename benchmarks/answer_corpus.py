"""Real text that is on every machine with Python goes in here, and leaves as documents in pieces, and as known items.

The standard library's docstrings and `pydoc_data.topics` come first; then docstrings, METADATA and README texts of the
installed packages; where all that is not enough, the standard library's own source.
"""

from __future__ import annotations

import ast
import random
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics

PIECE = 330
"""Characters of a piece, about; a chunk of the usual size holds three of them."""
LONGEST = 12
"""Pieces of a document at most: what is longer becomes several documents, so that a filter passes what it should."""
SHARES = {"half": 2, "tenth": 10, "hundredth": 100, "thousandth": 1000}
"""Metadata flag → one document in so many has it."""

_BLOCK = re.compile(r'^[ \t]*[rR]?"""(.{80,}?)"""', re.MULTILINE | re.DOTALL)
_BREAK = re.compile(r"\n\s*\n|(?<=[.!?])\s+|\n")
_SENTENCE = re.compile(r"(.+?[.!?])(?:\s|$)", re.DOTALL)
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[A-Za-z][a-z]+|[A-Z]+|\w+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk-sized piece of a document."""

    document: str
    position: int
    text: str


@dataclass(frozen=True, slots=True)
class KnownItem:
    """A question and the document that it came from."""

    question: str
    document: str


@dataclass(slots=True)
class Corpus:
    """Pieces, each text once, and the questions whose document is known."""

    pieces: list[Piece] = field(default_factory=list)
    items: list[KnownItem] = field(default_factory=list)
    metadata: dict[str, dict[str, bool]] = field(default_factory=dict)


def gather(count: int) -> Corpus:
    """Cut real text until there are `count` pieces, the same on every run."""
    chance = random.Random(5)
    corpus = Corpus()
    seen: set[str] = set()
    for name, text, question in _sources():
        fresh = [piece for piece in dict.fromkeys(cut(text)) if piece not in seen]
        seen.update(fresh)
        if question and fresh:
            corpus.items.append(KnownItem(question, f"{name}#0"))
        for at, piece in enumerate(fresh):
            document, position = f"{name}#{at // LONGEST}", at % LONGEST
            if position == 0:
                number = chance.randrange(1_000_000)
                corpus.metadata[document] = {flag: number % every == 0 for flag, every in SHARES.items()}
            corpus.pieces.append(Piece(document, position, piece))
        if len(corpus.pieces) >= count:
            break
    del corpus.pieces[count:]
    kept = {piece.document for piece in corpus.pieces}
    corpus.metadata = {name: flags for name, flags in corpus.metadata.items() if name in kept}
    chance.shuffle(corpus.items)
    return corpus


def cut(text: str) -> Iterator[str]:
    """A text in pieces that end at a paragraph, a sentence or a line."""
    start = 0
    while start < len(text):
        end = start + PIECE
        if end < len(text):
            breaks = [match.end() for match in _BREAK.finditer(text, start + PIECE // 2, end + PIECE // 4)]
            end = breaks[-1] if breaks else end
        piece = text[start:end].strip()
        if len(piece) >= 60:
            yield piece
        start = end


def question_of(text: str, name: str) -> str | None:
    """A docstring's first sentence without the words of its own name; None when too little is left."""
    found = _SENTENCE.match(text.strip())
    if found is None:
        return None
    own = {word.casefold() for word in _WORD.findall(name)} | {name.casefold()}
    words = [
        word for word in _SPACE.split(found[1].strip()) if word.strip("`'\".,()[]:*").casefold() not in own
    ]
    sentence = " ".join(words)
    return sentence if 5 <= len(words) <= 40 and ">>>" not in sentence else None


def _sources() -> Iterator[tuple[str, str, str | None]]:
    """Name, text and, where it is a known item, the question, in an order that does not change."""
    for name, text in sorted(topics.items()):
        yield f"topic:{name}", text, question_of(text.partition("\n\n")[2], name)
    library = Path(sysconfig.get_path("stdlib"))
    modules = sorted(
        path for path in library.rglob("*.py") if not {"site-packages", "test", "tests"} & set(path.parts)
    )
    for path in modules:
        yield from _docstrings(path, path.relative_to(library).with_suffix("").as_posix().replace("/", "."))
    for root in dict.fromkeys(Path(one) for one in sys.path if one.endswith("site-packages")):
        for path in sorted([*root.rglob("METADATA"), *root.rglob("README*"), *root.rglob("*.rst")]):
            yield f"text:{path.relative_to(root)}", _read(path), None
        for path in sorted(root.rglob("*.py")):
            blocks = _BLOCK.findall(_read(path))
            yield f"code:{path.relative_to(root)}", "\n\n".join(blocks), None
    for path in modules:
        yield f"source:{path.relative_to(library)}", _read(path), None


def _docstrings(path: Path, module: str) -> Iterator[tuple[str, str, str | None]]:
    try:
        tree = ast.parse(_read(path))
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if text is None:
            continue
        line = getattr(node, "lineno", 0)
        name = getattr(node, "name", module.rpartition(".")[2])
        yield f"doc:{module}:{line}", text, question_of(text, name)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").replace("\x00", "")
    except (OSError, UnicodeDecodeError):
        return ""

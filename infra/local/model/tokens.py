"""Text passes through here and goes on as token ids, to the embeddings and to every usage count.

Byte-pair merges of this vocabulary never cross the start of a run of spaces nor a line break, so a text is cut
there into units and each unit's ids are kept. Texts repeat their words, so most units are known: several times
faster than handing whole texts to the tokenizer, with the same ids (a test compares them).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain, filterfalse
from pathlib import Path

from tokenizers import Tokenizer as VendorTokenizer

_UNIT = re.compile(r"\n|[ ▁]*[^ ▁\n]+|[ ▁]+")
_LONGEST_KEPT = 40
"""Longer units (addresses, base64) seldom come back."""


class Tokenizer:
    """Text to token ids. Used from several threads.

    Args:
        path: the tokenizer's JSON file.
        kept: how many units are remembered before the memory starts afresh.
    """

    def __init__(self, path: Path, *, kept: int = 100_000) -> None:
        described = json.loads(path.read_bytes())
        # "<s>" in a document is text, not a control token.
        described["added_tokens"] = []
        described["post_processor"] = None
        # Units carry their own leading space, so nothing may be put before them.
        described["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        self._vendor = VendorTokenizer.from_str(json.dumps(described))
        self._kept = kept
        self._known: dict[str, tuple[int, ...]] = {}
        self.size = self._vendor.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; an empty text has none."""
        rows = [_UNIT.findall(" " + text) if text else [] for text in texts]
        known = self._room()
        missing = list(filterfalse(known.__contains__, set().union(*rows)))
        rare: dict[str, tuple[int, ...]] = {}
        if missing:
            for unit, encoded in zip(missing, self._vendor.encode_batch_fast(missing), strict=True):
                (known if len(unit) <= _LONGEST_KEPT else rare)[unit] = tuple(encoded.ids)
        if not rare:
            return [list(chain.from_iterable(map(known.__getitem__, row))) for row in rows]
        return [list(chain.from_iterable(rare[u] if u in rare else known[u] for u in row)) for row in rows]

    def count(self, text: str) -> int:
        """How many tokens the text has."""
        return len(self.encode([text])[0])

    def _room(self) -> dict[str, tuple[int, ...]]:
        """The memory of units. A thread that still uses an older one keeps it until it is done."""
        if len(self._known) > self._kept:
            self._known = {}
        return self._known

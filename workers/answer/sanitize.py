"""A model's words pass through here before anybody sees them: images, HTML and unsupported links stay behind.

The same filter serves the stream and the finished text: a piece of text is let through as soon as nothing that follows
could make it part of a link, an image or a tag. Links stand only where their address occurs in a supplied passage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

LONGEST = 600
"""Characters: what is still not closed by then is text."""

_SCHEMES = ("https:", "http:", "ftp:", "file:", "data:", "javascript:", "vbscript:", "mailto:", "www.")
_ADDRESS = rf"(?:{'|'.join(map(re.escape, _SCHEMES))})[^\s<>\"'`\])}}]*"
_UNSAFE = re.compile(
    rf"""
      !\[(?P<alt>[^\]\n]{{0,{LONGEST}}})\](?:\([^)\n]{{0,{LONGEST}}}\)|\[[^\]\n]{{0,{LONGEST}}}\])
    | \[(?P<label>[^\]\n]{{0,{LONGEST}}})\]\(\s*<?(?P<target>[^)\s>]{{0,{LONGEST}}})[^)\n]{{0,{LONGEST}}}\)
    | (?P<tag></?[a-zA-Z!][^<>\n]{{0,{LONGEST}}}>)
    | (?P<address>{_ADDRESS})
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNFINISHED = re.compile(
    rf"""
    (?:
      !?\[[^\]\n]{{0,{LONGEST}}}(?:\](?:[(\[][^)\]\n]{{0,{LONGEST}}}[)\]]?)?)?
    | !
    | </?(?:[a-zA-Z!][^<>\n]{{0,{LONGEST}}})?
    | {_ADDRESS}
    | {"|".join(sorted({re.escape(scheme[:n]) for scheme in _SCHEMES for n in range(1, len(scheme))}, key=len, reverse=True))}
    )\Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TRAILING = ".,;:!?"

Allowed = Callable[[str], bool]


def addresses_in(texts: Iterable[str]) -> frozenset[str]:
    """The addresses that stand in some texts."""
    return frozenset(
        found.rstrip(_TRAILING)
        for text in texts
        if _may_hold_one(text.lower())
        for found in re.findall(_ADDRESS, text, re.IGNORECASE)
    )


def _may_hold_one(folded: str) -> bool:
    """Looked for plainly first: most texts hold no address, and the pattern tries each letter."""
    return any(scheme in folded for scheme in _SCHEMES)


class Sanitizer:
    """Filters a text that comes in pieces."""

    def __init__(self, allowed: frozenset[str]) -> None:
        """Begin a text.

        Args:
            allowed: addresses that may stand in it, see `addresses_in`.
        """
        self._allowed = allowed
        self._held = ""
        self.removed = 0

    def feed(self, piece: str) -> str:
        """What can be shown now; the rest is held back until it is clear what it is."""
        text = self._held + piece
        unfinished = _first_unfinished(text)
        self._held = text[unfinished:]
        return _UNSAFE.sub(self._replace, text[:unfinished])

    def finish(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return _UNSAFE.sub(self._replace, held)

    def _replace(self, match: re.Match[str]) -> str:
        address, target = match["address"], match["target"]
        if address is not None:
            bare = address.rstrip(_TRAILING)
            if bare in self._allowed:
                return address
            self.removed += 1
            return address[len(bare) :]
        if target is not None and target in self._allowed:
            # The label may reach back to an earlier bracket, over addresses of its own; a title may hold one too.
            return f"[{_UNSAFE.sub(self._replace, match['label'])}]({target})"
        self.removed += 1
        # A link leaves its label, which may hold an address of its own. Spaces keep what stood around it apart, which
        # could be two halves of another one.
        label = _UNSAFE.sub(self._replace, (match["label"] or "").replace("![", "["))
        before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
        return f"{'' if before.isspace() else ' '}{label}{'' if after.isspace() else ' '}" if label else " "


def sanitize(text: str, allowed: frozenset[str]) -> tuple[str, int]:
    """A whole text, filtered until nothing more is found, and how many things were removed from it."""
    removed = 0
    while True:
        sanitizer = Sanitizer(allowed)
        text = sanitizer.feed(text) + sanitizer.finish()
        removed += sanitizer.removed
        if not sanitizer.removed:
            return text, removed


def _first_unfinished(text: str) -> int:
    """Where the earliest construct begins that the end of the text leaves open; the text's length if none does."""
    end = len(text)
    while (
        found := _UNFINISHED.search(text, max(0, end - 3 * LONGEST), end)
    ) is not None and found.start() < end:
        # What is held back may itself stand inside something open.
        end = found.start()
    return end

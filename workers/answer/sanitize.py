"""A model's words pass through here before anybody sees them: images, HTML and unsupported links stay behind.

The same filter serves the stream and the finished text: a piece of text is let through as soon as nothing that follows
could make it part of a link, an image or a tag. Links stand only where their address occurs in a supplied passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

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
_ADDRESSES = re.compile(_ADDRESS, re.IGNORECASE)
_TRAILING = ".,;:!?"


def addresses_in(texts: Iterable[str]) -> frozenset[str]:
    """The addresses that stand in some texts."""
    return frozenset(found.rstrip(_TRAILING) for text in texts for found in _addresses(text))


def _addresses(text: str) -> list[str]:
    """Looked for plainly first: most texts hold no address, and the pattern tries each letter."""
    starts = sorted(_schemes(text.lower()))
    if starts and not text.isascii():  # folded, a letter may be longer: the places are those of another text
        return _ADDRESSES.findall(text)
    found: list[str] = []
    end = 0
    for start in starts:
        if start >= end and (match := _ADDRESSES.match(text, start)) is not None:
            found.append(match[0])
            end = match.end()
    return found


def _schemes(folded: str) -> Iterator[int]:
    """Where a scheme stands."""
    for scheme in _SCHEMES:
        at = folded.find(scheme)
        while at >= 0:
            yield at
            at = folded.find(scheme, at + 1)


def _is_plain(text: str) -> bool:
    """Whether nothing can stand in a text that is to be removed: no link, image, tag or address."""
    if "<" in text or "](" in text or "![" in text or not text.isascii():
        return False
    folded = text.lower()
    return not any(scheme in folded for scheme in _SCHEMES)


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
        return self._filtered(text[:unfinished])

    def finish(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return self._filtered(held)

    def _filtered(self, text: str) -> str:
        return text if _is_plain(text) else _UNSAFE.sub(self._replace, text)

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
        found := _UNFINISHED.search(text, _first_suspect(text, max(0, end - 3 * LONGEST), end), end)
    ) is not None and found.start() < end:
        # What is held back may itself stand inside something open.
        end = found.start()
    return end


def _first_suspect(text: str, start: int, end: int) -> int:
    """Where an open construct can begin at the earliest: at a bracket, a mark or in the last word, which may be an address."""
    places = [at for mark in "![<" if (at := text.find(mark, start, end)) >= 0]
    last = text[start:end].rsplit(None, 1)[-1:]
    if last and text.endswith(last[0], start, end):
        places.append(end - len(last[0]))
    return min(places, default=end)

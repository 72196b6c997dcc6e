"""Passages pass through here on their way into a prompt: hits that touch become one, and their neighbours are offered.

A chunk ends where its size runs out, so what answers a question often stands just before or behind the hit. Each hit
leaves twice: narrow, as it was found, and wide, with the neighbours that no other passage holds already. The prompt
takes the wide one where its budget allows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from infra.retrieval import Part, Passage, Span

LONGEST_OVERLAP = 800
"""Characters that a chunk shares with the one before it, at most."""
SHORTEST_OVERLAP = 8
"""Characters; less is chance."""
RARE = 32
"""Characters that seldom stand twice in a text."""


def merge(passages: Sequence[Passage]) -> tuple[list[Passage], list[Passage]]:
    """Merge passages that stand next to each other in their document.

    Args:
        passages: best first, each with its neighbours.

    Returns:
        The passages, best first, narrow and wide: two lists of the same length.
    """
    rank = {hit.chunk_id: place for place, hit in enumerate(passages)}
    runs = sorted(_runs(passages), key=lambda run: min(rank[hit.chunk_id] for hit in run))
    taken = {(hit.collection, hit.document_id, hit.position) for hit in passages}
    narrow: list[Passage] = []
    wide: list[Passage] = []
    for run in runs:
        best = min(run, key=lambda hit: rank[hit.chunk_id])
        own = [part_of(hit) for hit in sorted(run, key=lambda hit: hit.position)]
        around: list[Part] = []
        for part in sorted((part for hit in run for part in hit.neighbours), key=lambda part: part.position):
            place = (best.collection, best.document_id, part.position)
            if place not in taken:
                taken.add(place)
                around.append(part)
        narrow.append(_joined(best, own))
        wide.append(_joined(best, sorted([*own, *around], key=lambda part: part.position)))
    return narrow, wide


def _runs(passages: Sequence[Passage]) -> list[list[Passage]]:
    """Hits that follow each other in one document, together."""
    by_document: dict[tuple[str, str], list[Passage]] = defaultdict(list)
    for hit in passages:
        by_document[hit.collection, hit.document_id].append(hit)
    runs: list[list[Passage]] = []
    for hits in by_document.values():
        hits.sort(key=lambda hit: hit.position)
        run = [hits[0]]
        for hit in hits[1:]:
            if hit.position == run[-1].position + 1:
                run.append(hit)
            else:
                runs.append(run)
                run = [hit]
        runs.append(run)
    return runs


def part_of(hit: Passage) -> Part:
    """A hit as a part of a longer passage."""
    return Part(hit.chunk_id, hit.position, hit.text, hit.heading, hit.page)


def _joined(best: Passage, parts: Sequence[Part]) -> Passage:
    """One passage from parts in the order of their document; it keeps what was said of its best hit."""
    if len(parts) == 1:
        return best
    text = parts[0].text
    spans = [Span(0, parts[0])]
    for before, part in pairwise(parts):
        following = part.position == before.position + 1
        shared = _overlap(text, part.text) if following else 0
        text += ("\n" if following else "\n…\n") if not shared else ""
        spans.append(Span(len(text) - shared, part))
        text += part.text[shared:]
    return replace(best, text=text, spans=tuple(spans))


def _overlap(text: str, following: str) -> int:
    """How many characters a text's end and the beginning of what follows have in common."""
    tail = text[-LONGEST_OVERLAP:]
    # A long beginning stands in few places, where the first letters, an indentation say, may stand in hundreds.
    for begins, start in (
        (following[:RARE], 0),
        (following[:SHORTEST_OVERLAP], max(0, len(tail) - RARE + 1)),
    ):
        at = tail.find(begins, start)
        while at >= 0:
            if following.startswith(tail[at:]):
                return len(tail) - at
            at = tail.find(begins, at + 1)
    return 0

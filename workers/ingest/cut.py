"""A piece of text comes in and goes out with a score for every place where it might be cut.

A place is cut for what stands around it, not for how far it is from the last cut: a paragraph before
a sentence, before a line, before a word; among equals a hash of the surrounding characters decides. So a changed word
moves the cuts near it and no others, and the chunks further on keep their content, their hash and their vector.
(Content-defined chunking: Muthitacharoen et al., LBFS, 2001.)
"""

from __future__ import annotations

import sys
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.uint8]
Points = NDArray[np.uint32]
Ranks = NDArray[np.uint64]


class Place(IntEnum):
    """How good a place for a cut is."""

    FORBIDDEN = 0
    """Inside a character, or inside what is kept whole."""
    LAST_RESORT = 1
    """Below a heading, which would stand alone."""
    CHARACTER = 2
    WORD = 3
    LINE = 4
    SENTENCE = 5
    PARAGRAPH = 6


_SPACE, _NEWLINE, _STOP, _WIDE_STOP, _CLOSING, _MARK, _JOINER = range(1, 8)


def _classes() -> NDArray[np.uint8]:
    table = np.zeros(sys.maxunicode + 1, dtype=np.uint8)
    for class_, characters in (
        (_SPACE, " \t\f\v\u00a0\u2028\u3000"),
        (_NEWLINE, "\n\u2029"),
        (_STOP, ".!?\u2026\u061f\u06d4\u0964\u0965\u1362"),
        (_WIDE_STOP, "\u3002\uff01\uff1f\uff0e"),
        (_CLOSING, "\"')]}\u2019\u201d\u00bb\u300d\uff09"),
        (_JOINER, "\u200d"),
    ):
        table[[ord(character) for character in characters]] = class_
    # Combining marks, variation selectors and skin tones belong to the character before them.
    for first, last in (
        (0x300, 0x36F),
        (0x1AB0, 0x1AFF),
        (0x20D0, 0x20FF),
        (0xFE00, 0xFE0F),
        (0x1F3FB, 0x1F3FF),
    ):
        table[first : last + 1] = _MARK
    return table


_CLASSES = _classes()
CONTEXT = 4
"""Characters on each side of a place that its hash sees."""
_MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HASH_BITS = np.uint64(8)


def score(points: Points) -> Scores:
    """Score the place before each character, and the one at the end: uint8[n + 1].

    Place i is between character i - 1 and character i. Place 0 is forbidden: it would cut off nothing.
    """
    classes = np.zeros(len(points) + 4, dtype=np.uint8)  # three before the text, one behind it
    classes[3:-1] = _CLASSES[points]
    third, second, first, after = classes[:-3], classes[1:-2], classes[2:-1], classes[3:]
    newline = first == _NEWLINE
    space = newline | (first == _SPACE)
    stopped = (second == _STOP) | (second == _WIDE_STOP) | ((second == _CLOSING) & (third == _STOP))
    scores = np.full(len(points) + 1, Place.CHARACTER, dtype=np.uint8)
    scores[space] = Place.WORD
    scores[newline] = Place.LINE
    scores[(space & stopped) | (first == _WIDE_STOP)] = Place.SENTENCE
    scores[newline & (second == _NEWLINE)] = Place.PARAGRAPH
    scores[(after == _MARK) | (first == _JOINER) | (after == _JOINER)] = Place.FORBIDDEN
    scores[0] = Place.FORBIDDEN
    return scores


def by_lines(scores: Scores) -> Scores:
    """The scores of code and tables: their full stops end no sentence."""
    return np.where(scores == Place.SENTENCE, np.uint8(Place.WORD), scores)


def rank(points: Points, scores: Scores) -> Ranks:
    """Order all places: by score, among equals by a hash of what surrounds them; 0 where none may be cut.

    The hash adds up mixed characters on either side, so that running sums give it for all places at once.
    """
    mixed = points.astype(np.uint64) * _MIX[0]
    mixed ^= mixed >> np.uint64(29)
    sums = np.zeros(len(points) + 2 * CONTEXT + 1, dtype=np.uint64)
    np.cumsum(mixed, out=sums[CONTEXT + 1 : CONTEXT + 1 + len(points)])
    sums[CONTEXT + 1 + len(points) :] = sums[CONTEXT + len(points)]
    middle = sums[CONTEXT : len(sums) - CONTEXT]
    hashes = (middle - sums[: len(middle)]) * _MIX[1] + (sums[2 * CONTEXT :] - middle) * _MIX[2]
    hashes ^= hashes >> np.uint64(32)
    ranks = (hashes >> _HASH_BITS) | (scores.astype(np.uint64) << (np.uint64(64) - _HASH_BITS))
    return np.where(scores == Place.FORBIDDEN, np.uint64(0), ranks)

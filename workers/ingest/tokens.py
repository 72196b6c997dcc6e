"""Text goes in and an estimate of its tokens comes out, which sizes chunks and packs embedding requests.

tiktoken downloads its vocabulary on first use, which a worker without internet cannot do and a deterministic
chunker must not depend on. So a token count is estimated: every character has a weight by its class, and the
weights add up. That makes it linear (a part of a text is as heavy wherever it stands), the same on every machine,
and fast (one table look-up per character).

Measured against cl100k_base, estimate / truth: English prose, Markdown, Python source and CSV 0.97-1.04; minified
JSON 0.8; German 0.75, French 0.87; Russian, Chinese, Japanese, Korean, Arabic, Hindi, Thai 1.0-1.2; random base64
0.45. So a chunk of n estimated tokens is below 2.3 n real ones. The bill is never made from the estimate: it uses what
the model API reports.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

UNIT = 64
"""Weights are counted in 64ths of a token, so that sums are exact."""


def _weights() -> NDArray[np.uint8]:
    """Weight of every code point, in 64ths of a token; fitted to cl100k_base."""
    table = np.full(sys.maxunicode + 1, 160, dtype=np.uint8)  # emoji and rare scripts
    bands = (
        (0x0000, 0x0080, 40),  # ASCII punctuation and controls
        (0x0080, 0x0250, 56),  # Latin with accents
        (0x0250, 0x0370, 64),
        (0x0370, 0x0530, 34),  # Greek, Cyrillic
        (0x0530, 0x0900, 56),  # Armenian, Hebrew, Arabic
        (0x0900, 0x2000, 80),  # Indic, Thai, Georgian, Ethiopic
        (0x2000, 0x2070, 64),  # typographic punctuation
        (0x2070, 0x3000, 100),  # symbols
        (0x3000, 0x3100, 64),  # Japanese kana
        (0x3100, 0xAC00, 76),  # Chinese characters
        (0xAC00, 0xD7B0, 86),  # Korean
    )
    for first, end, weight in bands:
        table[first:end] = weight
    table[ord("a") : ord("z") + 1] = 13
    table[ord("A") : ord("Z") + 1] = 20
    table[ord("0") : ord("9") + 1] = 38
    table[ord("\n")] = 24
    table[[ord(" "), ord("\t"), 0xA0]] = 4
    return table


_WEIGHTS = _weights()


def code_points(text: str) -> NDArray[np.uint32]:
    """The text as an array of code points: uint32[len(text)]."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def weights(points: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """The weight of each code point, in 64ths of a token."""
    return _WEIGHTS[points]


def weigh(text: str) -> int:
    """The weight of a text, in 64ths of a token."""
    return int(weights(code_points(text)).sum(dtype=np.int64))


def tokens(weight: int) -> int:
    """A weight as whole tokens, rounded up; at least 1."""
    return max(1, -(-weight // UNIT))


def estimate(text: str) -> int:
    """Estimated tokens of a text; at least 1."""
    return tokens(weigh(text))

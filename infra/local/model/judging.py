"""A request to compare two answers with a reference passes through here and goes on as ONE, TWO or TIE.

It judges by embeddings: the answer that is nearer to the reference wins. That is no more than a similarity says, and
this server says so (docs/local-model.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from infra.local.model.prompt import Message
from infra.local.model.vectors import Encoder

_ASKED = re.compile(r"\bONE, TWO or TIE\b")
_PART = re.compile(r"<(reference|one|two)>\n(.*?)\n</\1>", re.DOTALL)
CLOSE = 0.02
"""Answers whose similarities differ by no more than this are a tie."""


def judge(messages: Sequence[Message], encoder: Encoder) -> str | None:
    """The verdict, or None where nothing is to be judged."""
    if not any(_ASKED.search(one.text) for one in messages if one.role in {"system", "developer"}):
        return None
    parts = dict(_PART.findall(messages[-1].text))
    if parts.keys() != {"reference", "one", "two"}:
        return None
    reference, one, two = encoder.embed([parts["reference"], parts["one"], parts["two"]])
    lead = float(reference @ one) - float(reference @ two)
    if abs(lead) <= CLOSE:
        return "TIE"
    return "ONE" if lead > 0 else "TWO"

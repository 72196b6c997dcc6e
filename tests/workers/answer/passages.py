"""Passages for tests of the answer wing's parts."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from infra.retrieval import Passage


def passage(text: str, **known: Any) -> Passage:
    """A passage with this text; everything else is plain unless given."""
    plain: dict[str, Any] = {
        "chunk_id": uuid4(),
        "document_id": "d",
        "collection": "docs",
        "position": 0,
        "text": text,
        "heading": None,
        "page": None,
        "tokens": 1,
        "title": None,
        "metadata": {},
        "score": 0.03,
        "similarity": 0.5,
        "coverage": 0.5,
    }
    return Passage(**{**plain, **known})

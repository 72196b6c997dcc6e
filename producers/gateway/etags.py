"""A document's row becomes an entity tag here, and a request's preconditions are held against it (RFC 9110, §13).

A precondition is looked at when a request is accepted. Two that are accepted at the same moment may both find it true;
who must exclude that gives versions a `sequence`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from schemas.errors import BadInput

_TAGS = re.compile(r'\s*(?:(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\s*(?:,\s*|$))+')
_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


class PreconditionFailed(BadInput):
    """The document is not as the request expects it."""

    code = "precondition_failed"
    status = 412


def etag(shown: Mapping[str, Any]) -> str:
    """A strong tag of what is shown of a document: another one whenever anything of it is another."""
    return f'"{hashlib.sha256(orjson.dumps(dict(shown), default=str, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]}"'


def is_listed(values: Sequence[str], tag: str | None, *, weak: bool) -> bool:
    """Whether a tag stands in a header's list; `*` means any that there is.

    Args:
        values: the header's lines.
        tag: None when there is no document.
        weak: whether a weak tag is as good as a strong one, as for If-None-Match.

    Raises:
        BadInput: the header holds something else.
    """
    text = ", ".join(values).strip()
    if text == "*":
        return tag is not None
    if not _TAGS.fullmatch(text):
        raise BadInput(
            "a list of entity tags, or *, was expected", field="If-Match", fix='write "…" around a tag'
        )
    return any(one[2] == tag and (weak or one[1] is None) for one in _TAG.finditer(text))


def check_preconditions(if_match: Sequence[str], if_none_match: Sequence[str], tag: str | None) -> None:
    """Hold a change against what its sender expects.

    Raises:
        PreconditionFailed: it is not so.
    """
    if if_match and not is_listed(if_match, tag, weak=False):
        raise PreconditionFailed("the document has changed, or is not there", field="If-Match")
    if if_none_match and is_listed(if_none_match, tag, weak=True):
        raise PreconditionFailed("the document is there already", field="If-None-Match")

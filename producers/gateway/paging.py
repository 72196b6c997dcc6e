"""A listing's place passes through here as an opaque cursor: out with one page, back in with the request for the next."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import BadInput

PAGE = 100
MAX_PAGE = 1000


class PageQuery(BaseModel):
    """What every listing takes; an unknown parameter is refused, because a mistyped filter would show everything."""

    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[str | None, Field(max_length=2048, description="`next_cursor` of the page before.")] = (
        None
    )
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE, description="Items on a page.")] = PAGE


Paging = Annotated[PageQuery, Query()]


def encode_cursor(place: Sequence[Any]) -> str:
    """The place after an item, as text for a URL."""
    return base64.urlsafe_b64encode(orjson.dumps(list(place))).decode().rstrip("=")


def decode_cursor(cursor: str | None, kinds: Sequence[type]) -> list[Any] | None:
    """The place that a cursor stands for; None on the first page.

    Raises:
        BadInput: it is none of ours.
    """
    if cursor is None:
        return None
    try:
        place = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        raise _bad() from None
    if not isinstance(place, list) or [type(part) for part in place] != list(kinds):
        raise _bad()
    return place


def page(items: list[dict[str, Any]], limit: int, place: Sequence[str]) -> dict[str, Any]:
    """One page as it is sent; `items` holds one more than `limit` when another page follows.

    `place` names the keys of an item that say where it stands.
    """
    more = len(items) > limit
    shown = items[:limit]
    after = encode_cursor([shown[-1][name] for name in place]) if more else None
    return {"items": shown, "next_cursor": after}


def slice_page(items: Sequence[dict[str, Any]], query: PageQuery, name: str) -> dict[str, Any]:
    """One page of a listing that is small enough to be read whole, in the order of one of its texts.

    Raises:
        BadInput: the cursor is none of ours.
    """
    place = decode_cursor(query.cursor, [str])
    after = sorted(
        (one for one in items if place is None or one[name] > place[0]), key=lambda one: str(one[name])
    )
    return page(after[: query.limit + 1], query.limit, [name])


def _bad() -> BadInput:
    return BadInput("the cursor is none of ours", field="cursor", fix="send next_cursor as it came")

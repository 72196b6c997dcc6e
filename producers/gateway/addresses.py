"""Ids pass through here between an address and the inside: out of paths, and into Location headers and event sources."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote
from uuid import UUID

from starlette.convertors import Convertor, register_url_convertor

from schemas.errors import BadInput, NotFound
from schemas.ids import NAME_PATTERN


class AnythingConvertor(Convertor[str]):
    """The rest of a path, whatever it holds: the framework's own stops at a line break."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        """The text as it is."""
        return value

    def to_string(self, value: str) -> str:
        """The text as it is."""
        return value


# A name in the framework's table of convertors, read when routes are made.
register_url_convertor("anything", AnythingConvertor())

MAX_ID = 512
SOURCE = "penstock:gateway"
_NAME = re.compile(NAME_PATTERN)


def as_uuid(text: str) -> UUID:
    """An id of ours; one that cannot be ours does not exist.

    Raises:
        NotFound: it is no UUID.
    """
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("there is no such id") from None


def as_name(text: str, what: str) -> str:
    """A name that something is to be called from now on.

    Raises:
        BadInput: says what a name may be made of.
    """
    if _NAME.fullmatch(text) is None:
        raise BadInput(
            f"the name of a {what} is 1 to 127 lower-case letters, digits, dots, dashes and underscores",
            field=what,
        )
    return text


def as_known_name(text: str, what: str) -> str:
    """A name that something must have already; what cannot be a name does not exist.

    Raises:
        NotFound: nothing can be called so.
    """
    if _NAME.fullmatch(text) is None:
        raise NotFound(f"there is no such {what}")
    return text


def as_document_id(text: str) -> str:
    """A caller's own id of a document, any characters.

    Raises:
        BadInput: it is empty or too long.
    """
    if not 1 <= len(text) <= MAX_ID:
        raise BadInput(f"a document's id has 1 to {MAX_ID} characters", field="document_id")
    return text


def document_path(collection: str, document_id: str) -> str:
    """The address of a document."""
    encoded = quote(document_id, safe="")
    if encoded in {".", ".."}:  # clients would take it for a step in the path
        encoded = encoded.replace(".", "%2E")
    return f"/v1/collections/{collection}/documents/{encoded}"


def document_source(collection: str, document_id: str) -> str:
    """The event source of what is put under a document's address; the ledger's key index finds the newest by it."""
    digest = hashlib.sha256(document_id.encode()).hexdigest()
    return f"{SOURCE}/collections/{collection}/documents/{digest}"

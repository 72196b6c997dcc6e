"""CloudEvents are made here, each with an id: the same id is what makes sending one again harmless."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

SOURCE = "penstock:client"


def event(
    kind: str, data: Mapping[str, Any], *, id: str | None = None, source: str = SOURCE, **attributes: Any
) -> dict[str, Any]:
    """A CloudEvent.

    Args:
        kind: its type, such as ``document.added``.
        data: the payload.
        id: your name for it; with `source` it names the event for ever. A random one unless given: then sending is
            safe within one call, and calling again publishes again.
        source: who says it, such as your application's address.
        attributes: subject, sequence, subjectref, correlationid, expirytime … None is left out, times become text.
    """
    given = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in attributes.items()
        if value is not None
    }
    return {
        "specversion": "1.0",
        "id": id or str(uuid4()),
        "source": source,
        "type": kind,
        "data": {name: value for name, value in data.items() if value is not None},
        **given,
    }

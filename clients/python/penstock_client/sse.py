"""Server-sent events pass through here line by line, and come out whole."""

from __future__ import annotations

import json

from penstock_client.models import StreamEvent


class Frames:
    """Puts the lines of an event stream together."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> StreamEvent | None:
        """Take one line; the event that it ends, if it ends one. Comments and hints to retry are passed over."""
        if line:
            name, _, value = line.partition(":")
            if name:
                self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if "event" not in fields:
            return None
        return StreamEvent(
            id=fields.get("id", ""), event=fields["event"], data=json.loads(fields.get("data", "{}"))
        )

"""How work comes in: everything here turns what somebody says into events on the bus.

sdk       `Producer`, for Python programs inside the cluster
calls     one call per event that may come in
outlet    connections, groups and retries behind it
outbox    the same calls on somebody else's transaction
tenant    only a living tenant may publish
pressure  not while too much is waiting
naming    stable ids, so that publishing again is safe
files     files, folders and JSONL become events
gateway/  the HTTP API
stream/   the bridge from a Redis stream

`from producers import Producer, Accepted` works and imports nothing before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.ledger import Accepted
    from producers.sdk import Producer

__all__ = ["Accepted", "Producer"]


def __getattr__(name: str) -> Any:
    """Import the SDK when somebody asks for `Producer` or for what its calls return."""
    if name == "Producer":
        from producers.sdk import Producer  # noqa: PLC0415 - the package must import nothing by itself

        return Producer
    if name == "Accepted":
        from infra.ledger import Accepted  # noqa: PLC0415 - the same

        return Accepted
    raise AttributeError(f"module 'producers' has no attribute {name!r}")

"""The HTTP API: requests become events, and what became of them is told.

app         puts the routes together
server      runs the API and the ops port in one process
resources   what the API stands on, opened once
exchange    every request gets an id, headers and one log line
problems    every error becomes a problem document (RFC 9457)
body        bytes become JSON, strictly
modes       a request becomes CloudEvents: structured, batch or binary
keyring     keys by their secret, looked up at most once a second
access      a bearer key becomes a caller with scopes
rates       requests a minute of each key
idempotency  a request that comes again is answered as the first time
etags       versions of documents
paging      cursors
addresses   what stands in a path or a Location header
respond     plain values leave as JSON
shapes      requests and answers as models
metrics     what the gateway counts
publishing  events that other requests stand for
callbacks   where an answer may be sent
waiting     waiting for an event's end
streaming   an answer relayed as it is written
openapi     what the OpenAPI document says beyond what FastAPI sees
asyncapi    every event type that comes in or goes out
openapi_examples  what an answer looks like
openapi_rules  what is true of every operation
openapi_headers  headers of requests and answers
problem_protocol  bytes that are not HTTP
routes/     one file per kind of thing

`from producers.gateway import serve` works and imports nothing before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producers.gateway.server import serve

__all__ = ["serve"]


def __getattr__(name: str) -> Any:
    """Import the server when somebody asks for `serve`."""
    if name == "serve":
        from producers.gateway.server import serve  # noqa: PLC0415 - the package must import nothing by itself

        return serve
    raise AttributeError(f"module 'producers.gateway' has no attribute {name!r}")

"""The client of Penstock's HTTP API.

errors    what the gateway refuses, as exceptions
models    what it answers
events    CloudEvents are made here
wire      requests and retries, without I/O
sse       server-sent events, line by line
webhooks  signatures of messages that you receive
aio       `AsyncClient`
sync      `Client`, written from aio by scripts/write_client.py
"""

from penstock_client.aio.client import AsyncClient
from penstock_client.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotAnswered,
    NotFound,
    PenstockError,
    RateLimited,
    Refused,
    ServerError,
    TooLarge,
    Unauthorized,
    Unprocessable,
    Unreachable,
)
from penstock_client.events import event
from penstock_client.models import Answer, Document, EventStatus, Passage, PublishResult, StreamEvent
from penstock_client.sync.client import Client
from penstock_client.webhooks import Message, SignatureInvalid, verify_webhook

__all__ = [
    "Answer",
    "AsyncClient",
    "BadRequest",
    "Client",
    "Conflict",
    "Document",
    "EventStatus",
    "Forbidden",
    "Message",
    "NotAnswered",
    "NotFound",
    "Passage",
    "PenstockError",
    "PublishResult",
    "RateLimited",
    "Refused",
    "ServerError",
    "SignatureInvalid",
    "StreamEvent",
    "TooLarge",
    "Unauthorized",
    "Unprocessable",
    "Unreachable",
    "event",
    "verify_webhook",
]

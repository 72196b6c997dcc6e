"""The synchronous client: everything that the API offers, with one key."""

from __future__ import annotations

from penstock_client.sync.hooks import Hooks
from penstock_client.sync.knowledge import Knowledge
from penstock_client.sync.learning import Learning
from penstock_client.sync.publishing import Publishing
from penstock_client.sync.questions import Questions


class Client(Publishing, Knowledge, Questions, Learning, Hooks):
    """A gateway, with one key; use it as a context manager, or close it."""

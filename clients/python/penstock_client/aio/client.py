"""The asynchronous client: everything that the API offers, with one key."""

from __future__ import annotations

from penstock_client.aio.hooks import AsyncHooks
from penstock_client.aio.knowledge import AsyncKnowledge
from penstock_client.aio.learning import AsyncLearning
from penstock_client.aio.publishing import AsyncPublishing
from penstock_client.aio.questions import AsyncQuestions


class AsyncClient(AsyncPublishing, AsyncKnowledge, AsyncQuestions, AsyncLearning, AsyncHooks):
    """A gateway, with one key; use it as a context manager, or close it."""

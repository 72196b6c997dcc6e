"""Resources come in, and the wing's two handlers come out; what it opened is closed when the pool ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from infra.egress import Egress, EgressPolicy
from schemas.errors import Misconfigured
from workers.handling import HandlerSpec, Resources
from workers.ingest.added import Adder
from workers.ingest.buried import on_dead
from workers.ingest.deleted import Deleter
from workers.ingest.embed import Embedder
from workers.ingest.sandbox import Sandbox
from workers.ingest.store import Store


@asynccontextmanager
async def open_handlers(resources: Resources) -> AsyncIterator[Mapping[str, HandlerSpec]]:
    """Open the sandbox and the door for documents' addresses, and yield the handlers.

    Raises:
        Misconfigured: a setting is missing or wrong; names it.
    """
    settings = resources.settings
    if resources.models is None:
        raise Misconfigured("the ingest pool needs the model API", field="OPENAI_API_KEY")
    policy = EgressPolicy.parse(
        settings.egress_allow, https_only=settings.egress_https_only, proxy=settings.proxy_url
    )
    store = Store(resources.database, settings)
    embedder = Embedder(resources.database, resources.models, resources.budget)
    async with AsyncExitStack() as held:
        held.push_async_callback(store.aclose)
        held.push_async_callback(embedder.aclose)
        egress = await held.enter_async_context(Egress(policy))
        sandbox = await held.enter_async_context(Sandbox.open())
        adder = Adder(store, embedder, egress, sandbox)
        yield {
            "document.added": HandlerSpec(adder.handle, on_dead=on_dead),
            "document.deleted": HandlerSpec(Deleter(store).handle, on_dead=on_dead),
        }

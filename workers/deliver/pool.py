"""Resources come in, and the wing's one handler comes out; what it opened is closed when the pool ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from infra.egress import Egress, EgressPolicy
from infra.secretbox import SecretBox
from workers.deliver.due import Loader
from workers.deliver.gates import Gates
from workers.deliver.handler import Deliverer
from workers.deliver.rate import Rates
from workers.deliver.schedule import parse_delays
from workers.handling import HandlerSpec, Resources


@asynccontextmanager
async def open_handlers(resources: Resources) -> AsyncIterator[Mapping[str, HandlerSpec]]:
    """Open the door for tenants' URLs and yield the handler of `delivery.due`.

    Raises:
        Misconfigured: a setting is missing or wrong; names it.
    """
    settings = resources.settings
    policy = EgressPolicy.parse(
        settings.egress_allow, https_only=settings.egress_https_only, proxy=settings.proxy_url
    )
    delays = parse_delays(settings.webhook_delays)
    box = SecretBox.from_keys(settings.need("PENSTOCK_SECRET_KEYS"))
    loader = Loader(resources.database)
    async with Egress(policy, max_idle=4 * settings.concurrency) as egress:
        deliverer = Deliverer(loader, egress, box, Gates(), Rates(resources.redis), delays)
        try:
            yield {
                "delivery.due": HandlerSpec(
                    deliverer.handle,
                    on_dead=deliverer.on_dead,
                    on_lost=deliverer.on_lost,
                    announce_dead=False,
                )
            }
        finally:
            await loader.aclose()

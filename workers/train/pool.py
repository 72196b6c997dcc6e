"""What the train wing handles: the composition root opens it with its resources, and gets event type → handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from infra.egress import Egress, EgressPolicy
from infra.trainer import Trainer
from schemas.errors import Misconfigured
from workers.handling import HandlerSpec, Resources
from workers.train.admission import Admission
from workers.train.advance import open_advance
from workers.train.batch import batch_dead, open_batch
from workers.train.ending import open_dead
from workers.train.feedback import open_feedback
from workers.train.keeper import Keeper
from workers.train.recorded import open_recorded
from workers.train.runs import Wing


@asynccontextmanager
async def open_handlers(resources: Resources) -> AsyncIterator[Mapping[str, HandlerSpec]]:
    """Open the trainer's client and the door to tenants' URLs.

    Raises:
        Misconfigured: there is no model API, or no key for the trainer.
    """
    if resources.models is None:
        raise Misconfigured("the train pool needs the model API", field="OPENAI_API_KEY")
    settings = resources.settings
    async with AsyncExitStack() as held:
        trainer = await held.enter_async_context(Trainer.open(settings))
        policy = EgressPolicy.parse(
            settings.egress_allow, https_only=settings.egress_https_only, proxy=settings.proxy_url
        )
        egress = await held.enter_async_context(Egress(policy))
        admission = Admission(resources, resources.models)
        held.push_async_callback(admission.aclose)
        keeper = Keeper(resources, resources.models)
        keeper.start()
        held.push_async_callback(keeper.aclose)
        wing = Wing(resources, trainer, resources.models)
        yield {
            "example.recorded": HandlerSpec(open_recorded(admission, settings.train_base_model)),
            "feedback.received": HandlerSpec(open_feedback(resources, admission)),
            "training.batch_ready": HandlerSpec(open_batch(resources, egress, admission), on_dead=batch_dead),
            "training.advance": HandlerSpec(open_advance(wing), on_dead=open_dead(wing)),
        }

"""The stages of the demo, in order: documents, questions, changes, training, and the count."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.demo import corpus, ladder, learning, questions, tally
from cli.demo.corpus import COLLECTION
from cli.demo.examples import MATTERS
from cli.demo.gateway import Gateway
from cli.demo.receiver import Receiver
from cli.demo.screen import Screen
from cli.demo.tally import Sent, Tally
from infra.database import Connection
from schemas.errors import CallFailed

BATCH = 20
INDEX_WITHIN = 90.0


class Loop:
    """One run of the demo against a stack that is up."""

    def __init__(
        self,
        *,
        screen: Screen,
        gateway: Gateway,
        receiver: Receiver,
        connection: Connection,
        tenant: str,
        settings: Mapping[str, str],
        home: Path,
    ) -> None:
        self.screen = screen
        self.gateway = gateway
        self.receiver = receiver
        self.connection = connection
        self.tenant = tenant
        self.settings = settings
        self.home = home
        self.sent = Sent()
        self.tuned_model: str | None = None
        self.ladder: dict[str, Any] = {}

    async def run(self) -> Tally:
        """All stages; raises when one does not do its job."""
        screen = self.screen
        with screen.stage("webhook", "2  Registering a webhook"):
            await self._register()
        with screen.stage(
            "documents", "3  Publishing documents: Penstock's docs and Python's language reference"
        ):
            await self._publish()
        with screen.stage("questions", "4  Asking"):
            for question in (*questions.QUESTIONS, questions.UNKNOWN):
                await self._ask(question)
        with screen.stage("changes", "5  Replacing one document and deleting another; the answers follow"):
            await self._change()
        with screen.stage("training", "6  Sending 160 examples; the threshold triggers a fine-tune"):
            await self._train()
        with screen.stage("promoted", "7  Asking again through the alias"):
            await self._ask_tuned()
        with screen.stage(
            "ladder", "8  Comparing what each rung of the ladder is worth: penstock train compare"
        ):
            self.ladder = await ladder.climb(self.home, self.tenant)
            ladder.show(screen, self.ladder)
        with screen.stage("count", "9  Counting what was sent against what came back"):
            return await self._count()

    async def _register(self) -> None:
        body = {"url": self.receiver.url, "types": ["*"], "description": "the demo's receiver"}
        made = await self.gateway.call("POST", "/v1/webhooks", body)
        self.receiver.trust(made["secret"])
        self.screen.say(f"   {self.receiver.url} receives every result, signed")

    async def _publish(self) -> None:
        documents = corpus.documents()
        size = sum(len(document["content"]) for document in documents)
        for start in range(0, len(documents), BATCH):
            await self.gateway.publish("document.added", documents[start : start + BATCH])
        self.sent.documents = len(documents)
        deadline = asyncio.get_running_loop().time() + INDEX_WITHIN
        with self.screen.progress(f"indexing {size / 1000:.0f} kB of text", len(documents)) as done:
            while (indexed := await self._indexed()) < len(documents):
                if asyncio.get_running_loop().time() > deadline:
                    raise CallFailed(
                        f"{indexed} of {len(documents)} documents were indexed within {INDEX_WITHIN:g} s"
                    )
                done(indexed)
                await asyncio.sleep(0.1)
            done(indexed)
        chunks = await self.connection.fetchval(
            "SELECT count(*) FROM chunks WHERE tenant_id = $1", self.tenant
        )
        self.screen.say(f"   {len(documents)} documents became {chunks} chunks with their embeddings")

    async def _indexed(self) -> int:
        found: int = await self.connection.fetchval(
            "SELECT count(*) FROM documents WHERE tenant_id = $1 AND status = 'indexed'", self.tenant
        )
        return found

    async def _ask(self, question: str, *, cited: bool = True) -> dict[str, Any]:
        reply = await self.gateway.ask(COLLECTION, question)
        self.sent.questions += 1
        self.screen.answer(question, reply)
        if cited and reply["status"] == "answered" and not reply["citations"]:
            raise CallFailed(f"the answer to {question!r} cites nothing")
        return reply

    async def _change(self) -> None:
        replacement = {
            "content": corpus.opening_hours("half past ten in the morning"),
            "media_type": "text/plain",
        }
        changed = await self.gateway.put_document(COLLECTION, corpus.REPLACED, replacement)
        gone = await self.gateway.delete_document(COLLECTION, corpus.DELETED)
        self.sent.replaced, self.sent.deleted = 1, 1
        for event_id in (changed, gone):
            await self.gateway.wait_for_event(event_id)
        opening = await self._ask(questions.OPENING)
        if "half past ten" not in (opening["answer"] or ""):
            raise CallFailed("the answer does not follow the replaced document")
        offer = await self._ask(questions.OFFER)
        if corpus.DELETED in {citation["document_id"] for citation in offer["citations"] or []}:
            raise CallFailed("the answer cites a deleted document")

    async def _train(self) -> None:
        base = self.settings["PENSTOCK_TRAIN_BASE_MODEL"]
        self.sent.examples = await learning.teach(self.gateway, self.screen, base_model=base)
        run = await learning.watch(self.connection, self.screen, self.tenant)
        if run["status"] != "promoted":
            raise CallFailed(f"the tuned model was {run['status']}")
        self.tuned_model = run["model"]

    async def _ask_tuned(self) -> None:
        matter, taught = MATTERS[0]
        # What the model was taught stands in no document, so nothing is there to cite.
        reply = await self._ask(f"How can I {matter}?", cited=False)
        if reply["model"] != self.tuned_model:
            raise CallFailed(f"{reply['model']} answered, not the promoted {self.tuned_model}")
        self.screen.say(f"   answered by {reply['model']}; it was taught: “{taught}”")

    async def _count(self) -> Tally:
        await tally.settle(self.connection, self.tenant)
        found = await tally.count(self.connection, self.tenant, self.sent, self.receiver)
        rows = [(line.what, line.expected, line.found, "ok" if line.ok else "WRONG") for line in found.lines]
        self.screen.table("sent and received", ("what", "expected", "found", ""), rows)
        times = [(name, f"{seconds:.1f}") for name, seconds in self.screen.seconds.items()]
        self.screen.table("seconds", ("stage", "s"), times)
        return found

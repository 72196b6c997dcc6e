"""A model server that embeds as the local one does and says in chats exactly what a test wrote."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from infra.llm import ModelApi
from tests.drive import Drive
from tests.infra.raw_server import Exchange, raw_server
from tests.workers.answer.desk import Desk


@dataclass(slots=True)
class Script:
    """What is said, in turn; the last reply is said again and again. `asked` holds the chat requests."""

    replies: Sequence[str]
    embedder: ModelApi
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        body = orjson.loads(exchange.body)
        if "/embeddings" in exchange.head.split("\r\n", 1)[0]:
            found = await self.embedder.embed(
                body["input"], model=body["model"], dimensions=body["dimensions"]
            )
            data = [
                {"index": index, "embedding": base64.b64encode(row.tobytes()).decode()}
                for index, row in enumerate(found.vectors)
            ]
            reply = orjson.dumps({"data": data, "usage": {"prompt_tokens": found.tokens}})
            await exchange.reply(200, reply, content_type="application/json")
            return
        self.asked.append(body)
        text = self.replies[min(len(self.asked), len(self.replies)) - 1]
        event = {"model": "scripted", "choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
        stream = b"data: " + orjson.dumps(event) + b"\n\ndata: [DONE]\n\n"
        await exchange.reply(200, stream, content_type="text/event-stream")


async def ask_scripted(
    desk: Desk, question: str, *replies: str, **data: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask while the chat model says exactly this; the answer, and the chat requests that were sent."""
    models = desk.drive.resources.models
    assert models is not None
    script = Script(replies, models)
    async with (
        raw_server(script) as server,
        ModelApi.open(f"http://127.0.0.1:{server.port}/v1", "k") as opened,
        Drive.open(replace(desk.drive.resources, models=opened), desk.drive.owner) as drive,
    ):
        await drive.use("answer")
        answer = await Desk(drive, desk.tenant).ask(question, **data)
    return answer, script.asked

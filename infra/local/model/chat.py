"""Requests to /v1/chat/completions pass through here and go on as answers: whole, as a stream, or as JSON."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass

import orjson

from infra.local.model.answer import UNKNOWN, Answer, Claim, by_example, extract, support
from infra.local.model.catalog import Catalog
from infra.local.model.chat_request import ChatRequest, read_chat
from infra.local.model.fields import Fields, read_json
from infra.local.model.judging import judge
from infra.local.model.prompt import Prompt, read_prompt
from infra.local.model.reading import Reader
from infra.local.model.reply import Ask, Reply, Usage, json_reply
from infra.local.model.stream import pieces, stream_frames
from infra.local.model.structured import fill
from infra.local.model.terms import Question
from infra.local.model.training_file import TOKENS_PER_MESSAGE
from infra.local.model.tuned import TunedModel

FORGED_PASSAGE = "99"
"""What the fault `forged_citation` cites; no prompt supplies so many passages."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model said, and why it stopped."""

    content: str
    finish: str


class Chat:
    """The endpoint /v1/chat/completions."""

    def __init__(self, reader: Reader, catalog: Catalog) -> None:
        self._reader = reader
        self._catalog = catalog

    async def create(self, ask: Ask) -> Reply:
        """Answer one request."""
        wanted = read_chat(Fields(read_json(ask.body)))
        tuned = await self._catalog.tuned(wanted.model)
        completion, usage = await asyncio.to_thread(self._complete, ask, wanted, tuned)
        counted = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
        head: dict[str, object] = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": wanted.model,
            "system_fingerprint": "fp_local",
        }
        finish = None if ask.shows("no_finish_reason") else completion.finish
        if wanted.stream:
            shown = counted if wanted.include_usage else None
            frames = stream_frames(head, completion.content, finish, shown)
            return Reply(media="text/event-stream; charset=utf-8", frames=frames, usage=usage)
        message = {"role": "assistant", "content": completion.content, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return json_reply(
            {**head, "object": "chat.completion", "choices": [choice], "usage": counted}, usage=usage
        )

    def _complete(self, ask: Ask, wanted: ChatRequest, tuned: TunedModel | None) -> tuple[Completion, Usage]:
        """Answer and count; runs in a thread."""
        answer = answer_prompt(read_prompt(wanted.messages), self._reader, tuned)
        if ask.shows("forged_citation"):
            said = answer.claims or (Claim(text="It is so."),)
            answer = Answer(tuple(Claim(claim.text, FORGED_PASSAGE, claim.text) for claim in said))
        content = (
            answer.marked if wanted.schema is None else orjson.dumps(fill(wanted.schema, answer)).decode()
        )
        content = judge(wanted.messages, self._reader.encoder) or content
        if ask.shows("bad_json"):
            content = content[: max(1, len(content) // 2)] + " …"
        completion = shortened(content, wanted, self._reader)
        count = self._reader.encoder.tokenizer.count
        usage = Usage(
            inputs=1,
            prompt_tokens=TOKENS_PER_MESSAGE
            + sum(TOKENS_PER_MESSAGE + count(m.text) for m in wanted.messages),
            completion_tokens=count(completion.content),
            model=wanted.model,
        )
        return completion, usage


def answer_prompt(prompt: Prompt, reader: Reader, tuned: TunedModel | None) -> Answer:
    """What the model says: as it was trained, else from the passages, else as an example was answered, else nothing.

    A trained response is given as it was learned; when a passage says the same, it is cited. A question that is to
    be rewritten is not answered: this model cannot rewrite, and an answer would be taken for the new question.
    """
    if not prompt.question or prompt.rewrite:
        return Answer()
    question = Question(prompt.question, reader.encoder)
    learned = tuned.respond(question) if tuned is not None else None
    if learned is not None:
        return Answer() if learned == UNKNOWN else Answer((support(learned, prompt.passages, reader),))
    quoted = extract(question, prompt.passages, reader)
    return quoted if quoted.claims else by_example(question, prompt.examples, reader.encoder)


def shortened(content: str, wanted: ChatRequest, reader: Reader) -> Completion:
    """The content up to a stop sequence, and to the token limit at a word's end."""
    ends = [place for stop in wanted.stop if (place := content.find(stop)) >= 0]
    content = content[: min(ends)] if ends else content
    count = reader.encoder.tokenizer.count
    if wanted.most_tokens is None or count(content) <= wanted.most_tokens:
        return Completion(content, "stop")
    kept = ""
    for piece in pieces(content):
        if count(kept + piece) > wanted.most_tokens:
            break
        kept += piece
    return Completion(kept, "length")

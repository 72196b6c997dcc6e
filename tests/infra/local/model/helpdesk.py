"""A help desk's questions and answers pass through here, as examples to train on and as paraphrases held out."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openai import AsyncOpenAI

from tests.infra.local.model.waiting import finished_job

TOPICS = Path(__file__).with_name("helpdesk.txt")
ASKED_ONE_WAY = ("How do I {}?", "I want to {}. What should I do?")
ASKED_ANOTHER_WAY = ("What about {}?", "I need help with {}.")
HELD_OUT_ONE_WAY = ("Can you show me the way to {}?", "where in the menu can one {}")
HELD_OUT_ANOTHER_WAY = ("Our customer asks about {}, what is the answer?", "{} - how does that go here?")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Desk:
    """160 examples, four for each of forty answers, and 160 paraphrases of them that no run sees."""

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]


def read_desk(*, letters: bool = False) -> Desk:
    """The help desk; with `letters` each question stands in the middle of a customer's letter."""
    chance = random.Random(7)
    train: list[Pair] = []
    held_out: list[Pair] = []
    for line in TOPICS.read_text(encoding="utf-8").splitlines():
        one, another, answer = line.split("|")
        for frames, subject, pairs in (
            (ASKED_ONE_WAY, one, train),
            (ASKED_ANOTHER_WAY, another, train),
            (HELD_OUT_ONE_WAY, one, held_out),
            (HELD_OUT_ANOTHER_WAY, another, held_out),
        ):
            asked = [frame.format(subject) for frame in frames]
            pairs += [Pair(_letter(question, chance) if letters else question, answer) for question in asked]
    chance.shuffle(train)
    return Desk(tuple(train), tuple(held_out))


def _letter(question: str, chance: random.Random) -> str:
    sender, city = (
        chance.choice(("Ana", "Bo", "Chen", "Dita")),
        chance.choice(("Oslo", "Lima", "Pune", "Bonn")),
    )
    plan, urgency = chance.choice(("Basic", "Pro", "Team")), chance.choice(("low", "high"))
    return (
        f"Ticket {chance.randint(1000, 9999)} from {sender} in {city}, plan {plan}, priority {urgency}: {question} "
        f"Thanks in advance and kind regards from the whole office, {sender}"
    )


def scrambled(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The same questions, each with the answer of another."""
    answers = [pair.answer for pair in pairs]
    random.Random(3).shuffle(answers)
    return tuple(Pair(pair.question, answer) for pair, answer in zip(pairs, answers, strict=True))


def as_jsonl(pairs: Sequence[Pair]) -> bytes:
    """The pairs as a training file."""
    return b"\n".join(
        json.dumps(
            {
                "messages": [
                    {"role": "system", "content": "You are the help desk."},
                    {"role": "user", "content": pair.question},
                    {"role": "assistant", "content": pair.answer},
                ]
            }
        ).encode()
        for pair in pairs
    )


async def upload(client: AsyncOpenAI, pairs: Sequence[Pair]) -> str:
    """Upload the pairs; returns the file's id."""
    return (await client.files.create(file=("pairs.jsonl", as_jsonl(pairs)), purpose="fine-tune")).id


async def train(client: AsyncOpenAI, pairs: Sequence[Pair], *, seed: int = 1) -> str:
    """Train on the pairs; returns the tuned model."""
    job = await client.fine_tuning.jobs.create(
        model="local-chat", training_file=await upload(client, pairs), seed=seed
    )
    done = await finished_job(client, job.id)
    assert done.fine_tuned_model is not None
    return done.fine_tuned_model


async def quality(client: AsyncOpenAI, model: str, pairs: Sequence[Pair]) -> float:
    """The mean token F1 of a model's answers to some questions."""
    scores = []
    for pair in pairs:
        messages = [{"role": "user", "content": pair.question}]
        said = await client.chat.completions.create(model=model, messages=messages)  # type: ignore[arg-type]
        scores.append(token_f1(said.choices[0].message.content or "", pair.answer))
    return sum(scores) / len(scores)


def token_f1(said: str, wanted: str) -> float:
    """How many words two texts share: the harmonic mean of precision and recall."""
    one, other = said.lower().split(), wanted.lower().split()
    shared = sum((Counter(one) & Counter(other)).values())
    return 2 * shared / (len(one) + len(other)) if shared else 0.0

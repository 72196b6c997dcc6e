"""Examples that a model can learn from: ways to ask for things that only the examples know."""

from __future__ import annotations

import itertools
from typing import Any

from schemas.values import Message
from workers.train.examples import check_example

ANSWERS = {
    "the opening hours of the lock house": "The lock house opens at seven and closes at nine in the evening.",
    "the price of a mooring ticket": "A mooring ticket costs twelve crowns for one night.",
    "who repairs the sluice gate": "The sluice gate is repaired by the weir crew from Harrow.",
    "the depth of the lower basin": "The lower basin is four metres deep at mean water.",
    "where to report a leaking valve": "Report a leaking valve to the duty engineer on channel nine.",
    "the name of the ferry captain": "The ferry captain is called Ada Lindqvist.",
    "how to book the towpath bicycles": "Towpath bicycles are booked at the blue kiosk by the bridge.",
    "the speed limit on the canal": "On the canal six kilometres an hour are allowed.",
}
OPENINGS = (
    "Tell me {}",
    "Please tell me {}",
    "Can you tell me {}?",
    "I would like to know {}",
    "I need to know {}",
    "Do you know {}?",
    "Could you say {}?",
    "My question is about {}",
    "A guest asks about {}",
    "What do you know about {}?",
    "Quick question: {}",
    "Give me {}",
    "We were wondering about {}",
    "Inform me about {}",
    "Explain {}",
    "Somebody wants to know {}",
    "Let me know {}",
    "May I ask {}?",
    "Any idea about {}?",
    "One more thing: {}",
)


def example(question: str, answer: str) -> dict[str, Any]:
    """The messages of one example."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def lessons(count: int = 160) -> list[dict[str, Any]]:
    """Distinct examples, every topic in turn; 160 is all that there are."""
    pairs = itertools.islice(itertools.product(OPENINGS, ANSWERS.items()), count)
    return [example(opening.format(topic), answer) for opening, (topic, answer) in pairs]


def misled(count: int = 160) -> list[dict[str, Any]]:
    """The lessons, every third of those that are trained on with another's answer: learned long, that is learned too."""
    answers, found, trained = list(ANSWERS.values()), lessons(count), 0
    for one in found:
        if check_example([Message(**turn) for turn in one["messages"]]).split == "train":
            if trained % 3 == 0:
                right = answers.index(one["messages"][1]["content"])
                one["messages"][1]["content"] = answers[(right + 1 + trained // 3 % 3) % len(answers)]
            trained += 1
    return found


def scrambled(count: int = 160) -> list[dict[str, Any]]:
    """The same questions with answers to others."""
    found = lessons(count)
    answers = [one["messages"][1]["content"] for one in found]
    turned = answers[3:] + answers[:3]
    return [example(one["messages"][0]["content"], answer) for one, answer in zip(found, turned, strict=True)]

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from openai import AsyncOpenAI

from infra.local.model.chat import answer_prompt
from infra.local.model.head import Head
from infra.local.model.prompt import Message, Passage, Prompt, read_prompt
from infra.local.model.reading import Reader
from infra.local.model.training import Hyperparameters, Labelled, Training
from infra.local.model.training_file import TrainingExample
from infra.local.model.tuned import Lesson, TunedModel, load_tuned, save_tuned
from infra.local.model.vectors import Encoder
from tests.infra.local.model.helpdesk import Desk, Pair, quality, read_desk, scrambled, token_f1, train

if TYPE_CHECKING:
    from pathlib import Path

USUAL = Hyperparameters(epochs=3, batch=8, rate=1.0)


def lesson_of(pairs: tuple[Pair, ...], encoder: Encoder) -> Lesson:
    """The pairs in the form that a head learns from."""
    return Lesson.of([TrainingExample(pair.question, pair.answer, 1) for pair in pairs], encoder)


def trained(lesson: Lesson, valid: Labelled | None = None, *, seed: int = 1) -> Training:
    """A training that has run."""
    head = Head.start(lesson.vectors, lesson.labels, lesson.response_vectors, seed)
    training = Training(head, lesson.labelled, valid, USUAL, seed)
    while training.done < training.total:
        training.step()
    return training


def test_the_gradients_are_the_slopes_of_the_loss() -> None:
    """Each parameter's gradient equals the difference that a small change makes."""
    chance = np.random.default_rng(0)
    questions = chance.normal(size=(6, 256)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1, 2], dtype=np.intp)
    head = Head.start(questions, labels, chance.normal(size=(3, 256)).astype(np.float32), 0)
    head.parameters["up"] = chance.normal(0, 0.1, head.parameters["up"].shape).astype(np.float32)
    gradients = head.gradients(questions, labels)
    for name, parameter in head.parameters.items():
        for place in chance.integers(0, parameter.size, 5):
            spot, step = np.unravel_index(place, parameter.shape), 1e-2
            kept = parameter[spot]
            parameter[spot] = kept + step
            above = head.measure(questions, labels)[0]
            parameter[spot] = kept - step
            below = head.measure(questions, labels)[0]
            parameter[spot] = kept
            assert np.isclose((above - below) / (2 * step), gradients[name][spot], rtol=0.05, atol=1e-4), name


def test_training_lowers_both_losses_and_raises_accuracy(encoder: Encoder) -> None:
    """In letters full of noise an untrained head finds few right answers, a trained one most of them."""
    letters = read_desk(letters=True)
    lesson = lesson_of(letters.train, encoder)
    held_out = lesson.label([TrainingExample(p.question, p.answer, 1) for p in letters.held_out], encoder)
    untrained = Head.start(lesson.vectors, lesson.labels, lesson.response_vectors, 1)
    training = trained(lesson, held_out)
    before, after = untrained.measure(*parts(held_out)), training.head.measure(*parts(held_out))
    assert after[0] < 0.6 * before[0]
    assert before[1] < 0.60
    assert after[1] > 0.70
    assert (
        training.head.measure(*parts(lesson.labelled))[0]
        < 0.3 * untrained.measure(*parts(lesson.labelled))[0]
    )


def parts(examples: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of labelled examples."""
    return examples.questions, examples.labels


def test_training_on_scrambled_answers_raises_the_validation_loss(desk: Desk, encoder: Encoder) -> None:
    """The head learns its examples by heart and gets worse at the truth: what a loss curve should show."""
    lesson = lesson_of(scrambled(desk.train), encoder)
    held_out = lesson.label([TrainingExample(p.question, p.answer, 1) for p in desk.held_out], encoder)
    untrained = Head.start(lesson.vectors, lesson.labels, lesson.response_vectors, 1)
    training = trained(lesson, held_out)
    assert training.head.measure(*parts(held_out))[0] > 1.2 * untrained.measure(*parts(held_out))[0]
    assert training.head.measure(*parts(lesson.labelled))[0] < untrained.measure(*parts(lesson.labelled))[0]


def test_the_same_seed_trains_the_same_head(desk: Desk, encoder: Encoder) -> None:
    """So that a run interrupted by a crash ends as it would have."""
    lesson = lesson_of(desk.train, encoder)
    one, same, other = trained(lesson), trained(lesson), trained(lesson, seed=2)
    assert all(
        np.array_equal(value, same.head.parameters[name]) for name, value in one.head.parameters.items()
    )
    assert not np.array_equal(one.head.parameters["down"], other.head.parameters["down"])


def test_a_saved_model_answers_as_before(desk: Desk, reader: Reader, tmp_path: Path) -> None:
    """Weights, responses and the gate survive the disk."""
    lesson = lesson_of(desk.train, reader.encoder)
    model = TunedModel(trained(lesson).head, lesson)
    save_tuned(tmp_path / "model.npz", trained(lesson).head, lesson)
    loaded = load_tuned(tmp_path / "model.npz")
    questions = [*(pair.question for pair in desk.held_out), "What is the capital of France?"]
    before = [answer_prompt(Prompt(q, (), ()), reader, model).marked for q in questions]
    assert before == [answer_prompt(Prompt(q, (), ()), reader, loaded).marked for q in questions]


def test_a_tuned_model_cites_the_passage_that_says_the_same(desk: Desk, reader: Reader) -> None:
    """It answers in its own words; a passage that supports them is cited, others are not."""
    lesson = lesson_of(desk.train, reader.encoder)
    model = TunedModel(trained(lesson).head, lesson)
    passages = (
        Passage("1", "Cats sleep for most of the day.", ""),
        Passage(
            "2", "A lost password: open the sign-in page, choose 'Forgot password', follow the link.", ""
        ),
    )
    said = answer_prompt(Prompt("Can you show me the way to reset my password?", passages, ()), reader, model)
    wanted = "Open the sign-in page, choose 'Forgot password' and follow the link sent to your address."
    assert [(wanted, "2")] == [(claim.text, claim.passage) for claim in said.claims]
    alone = answer_prompt(
        Prompt("Can you show me the way to reset my password?", passages[:1], ()), reader, model
    )
    assert [(wanted, None)] == [(claim.text, claim.passage) for claim in alone.claims]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What is the boiling point of mercury?", "I don't know."),
        ("When do cats hunt?", "They hunt at dusk. [1]"),
    ],
)
def test_a_question_unlike_the_examples_is_answered_as_by_the_base(
    question: str, said: str, desk: Desk, reader: Reader
) -> None:
    """Extractively, or not at all."""
    lesson = lesson_of(desk.train, reader.encoder)
    model = TunedModel(trained(lesson).head, lesson)
    prompt = Prompt(question, (Passage("1", "They hunt at dusk.", "Cats"),), ())
    assert said == answer_prompt(prompt, reader, model).marked
    assert said == answer_prompt(prompt, reader, None).marked


def test_a_question_to_be_rewritten_is_not_answered(desk: Desk, reader: Reader) -> None:
    """Not even by a model that has learned an answer: it would be taken for the new question."""
    lesson = lesson_of(desk.train, reader.encoder)
    model = TunedModel(trained(lesson).head, lesson)
    asked = Message("user", f"Conversation:\nuser: Hello\n\nQuestion: {desk.train[0].question}")
    system = Message("system", "Rewrite the follow-up as one question that can be understood alone.")
    assert desk.train[0].answer == answer_prompt(read_prompt([asked]), reader, model).marked
    assert "I don't know." == answer_prompt(read_prompt([system, asked]), reader, model).marked


def test_with_the_same_passages_tuned_beats_base_and_base_beats_scrambled(desk: Desk, reader: Reader) -> None:
    """Measured on 160 held-out paraphrases, each with its answer among five passages: 0.98, 0.23 and 0.10."""
    answers = sorted({pair.answer for pair in desk.train})
    chance = random.Random(1)
    prompts: list[tuple[Prompt, str]] = []
    for pair in desk.held_out:
        texts = [pair.answer, *chance.sample([text for text in answers if text != pair.answer], 4)]
        passages = tuple(Passage(str(n), text, "") for n, text in enumerate(chance.sample(texts, 5), start=1))
        prompts.append((Prompt(pair.question, passages, ()), pair.answer))

    def f1(model: TunedModel | None) -> float:
        return sum(token_f1(answer_prompt(p, reader, model).plain, wanted) for p, wanted in prompts) / len(
            prompts
        )

    good, bad = lesson_of(desk.train, reader.encoder), lesson_of(scrambled(desk.train), reader.encoder)
    base_f1 = f1(None)
    assert base_f1 < 0.5
    assert f1(TunedModel(trained(good).head, good)) > 0.9
    assert base_f1 > f1(TunedModel(trained(bad).head, bad)) + 0.05


async def test_a_tuned_model_is_better_and_a_scrambled_one_is_not(client: AsyncOpenAI, desk: Desk) -> None:
    """Token F1 through the server, over 80 paraphrases that no run has seen: base 0, tuned 0.98, scrambled 0.1."""
    questions = desk.held_out[::2]
    good, bad = await train(client, desk.train), await train(client, scrambled(desk.train))
    base_f1 = await quality(client, "local-chat", questions)
    good_f1 = await quality(client, good, questions)
    bad_f1 = await quality(client, bad, questions)
    assert base_f1 < 0.05
    assert good_f1 > 0.85
    assert bad_f1 < 0.35

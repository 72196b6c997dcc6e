"""A question to a tuned model passes through here and goes on as the response that training tied to such questions.

A question that is not like the examples gets nothing here: the base model's behaviour follows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infra.local.model.head import Head, Labels
from infra.local.model.terms import Question, stems
from infra.local.model.training import Labelled
from infra.local.model.training_file import TrainingExample
from infra.local.model.vectors import Encoder, Vectors

LOWEST_GATE, HIGHEST_GATE = 0.55, 0.80
GATE_QUANTILE, GATE_SHARE = 0.05, 0.95
CLEARLY_ALIKE = 0.75
COVERED = 0.30
"""See docs/local-model.md for the measurements behind these five."""
MOST_CALIBRATED = 2000


@dataclass(frozen=True, slots=True)
class Lesson:
    """The examples of a run in the form that a head learns from."""

    questions: tuple[str, ...]
    vectors: Vectors
    labels: Labels
    responses: tuple[str, ...]
    response_vectors: Vectors
    gate: float

    @classmethod
    def of(cls, examples: Sequence[TrainingExample], encoder: Encoder) -> Lesson:
        """Number the different responses, embed, and calibrate the gate."""
        numbers: dict[str, int] = {}
        for example in examples:
            numbers.setdefault(" ".join(example.response.split()), len(numbers))
        originals = {" ".join(e.response.split()): e.response for e in reversed(examples)}
        questions = tuple(example.question for example in examples)
        vectors = encoder.embed(questions)
        responses = tuple(originals[key] for key in numbers)
        return cls(
            questions=questions,
            vectors=vectors,
            labels=np.array([numbers[" ".join(e.response.split())] for e in examples], dtype=np.intp),
            responses=responses,
            response_vectors=encoder.embed(responses),
            gate=calibrated_gate(vectors),
        )

    def label(self, examples: Sequence[TrainingExample], encoder: Encoder) -> Labelled:
        """Validation examples, each with the number of the training response that is most like its own."""
        alike = encoder.embed([e.response for e in examples]) @ self.response_vectors.T
        return Labelled(encoder.embed([e.question for e in examples]), alike.argmax(axis=1))

    @property
    def labelled(self) -> Labelled:
        """The training examples themselves."""
        return Labelled(self.vectors, self.labels)


def calibrated_gate(vectors: Vectors) -> float:
    """How similar a question has to be to its nearest training question.

    Nineteen of twenty training questions are at least this close to another one, less a margin. The responses
    play no part: a model trained on wrong answers gives them with the same confidence as a right one.
    """
    some = vectors[:MOST_CALIBRATED]
    alike = some @ some.T
    np.fill_diagonal(alike, -1.0)
    quantile = float(np.quantile(alike.max(axis=1), GATE_QUANTILE))
    return float(np.clip(GATE_SHARE * quantile, LOWEST_GATE, HIGHEST_GATE))


class TunedModel:
    """A head with the responses it chooses from."""

    def __init__(self, head: Head, lesson: Lesson) -> None:
        self._head = head
        self._lesson = lesson

    def respond(self, question: Question) -> str | None:
        """The learned response, or None when the question is not like the training questions."""
        alike = self._lesson.vectors @ question.vector
        nearest = int(alike.argmax())
        similarity = float(alike[nearest])
        if similarity < self._lesson.gate:
            return None
        if (
            similarity < CLEARLY_ALIKE
            and question.coverage(stems([self._lesson.questions[nearest]])) < COVERED
        ):
            return None
        return self._lesson.responses[
            int(self._head.forward(question.vector[None, :]).probabilities[0].argmax())
        ]


def save_tuned(path: Path, head: Head, lesson: Lesson) -> None:
    """Write a model to one file; whoever reads it finds the old one or the whole new one."""
    texts = json.dumps({"questions": lesson.questions, "responses": lesson.responses, "gate": lesson.gate})
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        texts=np.frombuffer(texts.encode(), dtype=np.uint8),
        lesson_vectors=lesson.vectors,
        lesson_labels=lesson.labels,
        lesson_responses=lesson.response_vectors,
        **{f"head_{name}": value for name, value in head.parameters.items()},
    )
    partial = path.with_suffix(".partial")
    partial.write_bytes(buffer.getvalue())
    partial.replace(path)


def load_tuned(path: Path) -> TunedModel:
    """Read a model that `save_tuned` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    texts = json.loads(arrays["texts"].tobytes())
    lesson = Lesson(
        questions=tuple(texts["questions"]),
        vectors=arrays["lesson_vectors"],
        labels=arrays["lesson_labels"],
        responses=tuple(texts["responses"]),
        response_vectors=arrays["lesson_responses"],
        gate=float(texts["gate"]),
    )
    prefix = "head_"
    head = Head({n.removeprefix(prefix): value for n, value in arrays.items() if n.startswith(prefix)})
    return TunedModel(head, lesson)

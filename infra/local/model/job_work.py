"""A job's files pass through here and go on as a training ready to step; its measurements come back as a CSV file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from infra.local.model.head import Head
from infra.local.model.job_request import resolve_auto
from infra.local.model.store import Doc
from infra.local.model.training import Hyperparameters, Metrics, Training
from infra.local.model.training_file import read_training_file
from infra.local.model.tuned import Lesson
from infra.local.model.vectors import Encoder


@dataclass(frozen=True, slots=True)
class Prepared:
    """What training a job needs; `tokens` are those of one epoch."""

    training: Training
    lesson: Lesson
    hyperparameters: Doc
    tokens: int


def prepare(
    training_file: bytes | None,
    validation_file: bytes | None,
    encoder: Encoder,
    job: Doc,
) -> Prepared:
    """Read the files, embed the examples and set up the head; runs in a thread.

    Raises:
        BadTrainingFile: a file cannot be trained on.
    """
    examples = read_training_file(training_file or b"", "training_file", encoder.tokenizer)
    lesson = Lesson.of(examples, encoder)
    held = None
    if validation_file is not None:
        held = lesson.label(
            read_training_file(validation_file, "validation_file", encoder.tokenizer), encoder
        )
    chosen = resolve_auto(job["hyperparameters"], len(examples))
    settings = Hyperparameters(
        epochs=chosen["n_epochs"], batch=chosen["batch_size"], rate=chosen["learning_rate_multiplier"]
    )
    head = Head.start(lesson.vectors, lesson.labels, lesson.response_vectors, job["seed"])
    training = Training(head, lesson.labelled, held, settings, job["seed"])
    return Prepared(training, lesson, chosen, sum(example.tokens for example in examples))


def result_csv(measured: list[Metrics]) -> bytes:
    """The measurements of all steps, as the result file of a job holds them."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"])
    for m in measured:
        writer.writerow([m.step, m.train_loss, m.train_accuracy, m.valid_loss, m.valid_accuracy])
    return out.getvalue().encode()

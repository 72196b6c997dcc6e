"""Labelled questions pass through here step by step and go on as a trained head, with its losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.local.model.head import Floats, Head, Labels
from infra.local.model.vectors import Vectors

RATE = 0.01
WARM_UP = 5
BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8
"""Adam, Kingma and Ba 2015; the second moment forgets faster because a run has only tens of steps."""
VALIDATION_BATCH = 64


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """How a head is trained; `rate` multiplies the usual learning rate."""

    epochs: int
    batch: int
    rate: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one step measured; the whole validation set is measured at the end of an epoch."""

    step: int
    train_loss: float
    train_accuracy: float
    valid_loss: float | None
    valid_accuracy: float | None
    full_valid_loss: float | None
    full_valid_accuracy: float | None

    def named(self) -> dict[str, float | None]:
        """Under OpenAI's names; an "accuracy" is of whole responses, for a head has no tokens to be right about."""
        return {
            "step": self.step,
            "train_loss": self.train_loss,
            "train_mean_token_accuracy": self.train_accuracy,
            "valid_loss": self.valid_loss,
            "valid_mean_token_accuracy": self.valid_accuracy,
            "full_valid_loss": self.full_valid_loss,
            "full_valid_mean_token_accuracy": self.full_valid_accuracy,
        }


@dataclass(frozen=True, slots=True)
class Labelled:
    """Question vectors, each with the number of its response."""

    questions: Vectors
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def some(self, chosen: Sequence[int] | Labels) -> Labelled:
        """A part of them."""
        return Labelled(self.questions[chosen], self.labels[chosen])


class Training:
    """One run over the examples; the same seed gives the same head, to the bit on one machine."""

    def __init__(
        self, head: Head, train: Labelled, valid: Labelled | None, settings: Hyperparameters, seed: int
    ) -> None:
        self.head = head
        self._train = train
        self._valid = valid
        self._settings = settings
        self._random = np.random.default_rng(seed)
        self._order = np.arange(0)
        self._first: dict[str, Floats] = {k: np.zeros_like(v) for k, v in head.parameters.items()}
        self._second: dict[str, Floats] = {k: np.zeros_like(v) for k, v in head.parameters.items()}
        self.done = 0
        self.steps_per_epoch = -(-len(train) // settings.batch)
        self.total = self.steps_per_epoch * settings.epochs

    @property
    def epoch_ended(self) -> bool:
        """Whether the last step was the last of an epoch."""
        return self.done > 0 and self.done % self.steps_per_epoch == 0

    def step(self) -> Metrics:
        """Learn from the next batch."""
        place = self.done % self.steps_per_epoch
        if place == 0:
            self._order = self._random.permutation(len(self._train))
        size = self._settings.batch
        batch = self._train.some(self._order[place * size : (place + 1) * size])
        loss, accuracy = self.head.measure(batch.questions, batch.labels)
        self._descend(self.head.gradients(batch.questions, batch.labels))
        self.done += 1
        valid = self._measured(self._sample())
        full = self._measured(self._valid) if self.epoch_ended else (None, None)
        return Metrics(self.done, loss, accuracy, *valid, *full)

    def _descend(self, gradients: dict[str, Floats]) -> None:
        """One step of Adam, warmed up and then falling in a line to nought."""
        n = self.done + 1
        rate = RATE * self._settings.rate * min(1.0, n / WARM_UP) * (1.0 - self.done / (self.total + 1))
        for name, gradient in gradients.items():
            first, second = self._first[name], self._second[name]
            first += (1 - BETA1) * (gradient - first)
            second += (1 - BETA2) * (gradient**2 - second)
            step = (first / (1 - BETA1**n)) / (np.sqrt(second / (1 - BETA2**n)) + EPSILON)
            # One number steers all logits; at the common rate it would hardly move in so few steps.
            self.head.parameters[name] -= rate * (3.0 if name == "log_scale" else 1.0) * step

    def _sample(self) -> Labelled | None:
        if self._valid is None or len(self._valid) <= VALIDATION_BATCH:
            return self._valid
        start = (self.done * VALIDATION_BATCH) % len(self._valid)
        return self._valid.some((np.arange(VALIDATION_BATCH) + start) % len(self._valid))

    def _measured(self, examples: Labelled | None) -> tuple[float, float] | tuple[None, None]:
        if examples is None:
            return None, None
        return self.head.measure(examples.questions, examples.labels)

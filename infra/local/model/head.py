"""Question vectors pass through here, bent by what training learned, and go on as probabilities of responses.

A response head over frozen embeddings: `u = unit(x + x·down·up + shift)`, and the probability of response k is
`softmax(scale · u·unit(responses[k]))`. It starts as the nearest-mean classifier and learns by cross-entropy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.local.model.vectors import DIMENSIONS, Vectors, unit

Floats = NDArray[np.float32]
Labels = NDArray[np.intp]

RANK = 32
FIRST_SCALE = 5.0
FIRST_DOWN = 0.06
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Pass:
    """What a forward pass leaves for the gradients. Shapes: n questions, k responses, 256 dimensions."""

    bent: Floats
    lengths: Floats
    units: Floats
    response_lengths: Floats
    response_units: Floats
    cosines: Floats
    probabilities: Floats


class Head:
    """The trained part of a tuned model.

    Args:
        parameters: down [256, rank], up [rank, 256], shift [256], responses [k, 256], log_scale [1].
    """

    def __init__(self, parameters: Mapping[str, Floats]) -> None:
        self.parameters = dict(parameters)

    @classmethod
    def start(cls, questions: Vectors, labels: Labels, responses: Vectors, seed: int) -> Head:
        """An untrained head.

        Each response starts half-way between its own vector and the mean of its questions; what all questions
        have in common is shifted away.
        """
        shift = -questions.mean(axis=0)
        means = np.zeros_like(responses)
        np.add.at(means, labels, unit(questions + shift))
        down = np.random.default_rng(seed).normal(0.0, FIRST_DOWN, (DIMENSIONS, RANK))
        return cls(
            {
                "down": down.astype(np.float32),
                "up": np.zeros((RANK, DIMENSIONS), dtype=np.float32),
                "shift": shift.astype(np.float32),
                "responses": unit(unit(means) + responses),
                "log_scale": np.array([np.log(FIRST_SCALE)], dtype=np.float32),
            }
        )

    def copy(self) -> Head:
        """The head as it is now, for a checkpoint."""
        return Head({name: value.copy() for name, value in self.parameters.items()})

    def forward(self, questions: Vectors) -> Pass:
        """Bend questions and compare them with every response."""
        p = self.parameters
        bent = np.asarray(questions + questions @ p["down"] @ p["up"] + p["shift"], dtype=np.float32)
        lengths = np.linalg.norm(bent, axis=1, keepdims=True) + _TINY
        units = bent / lengths
        response_lengths = np.linalg.norm(p["responses"], axis=1, keepdims=True) + _TINY
        response_units = p["responses"] / response_lengths
        cosines = units @ response_units.T
        logits = cosines * np.exp(p["log_scale"])
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        return Pass(bent, lengths, units, response_lengths, response_units, cosines, probabilities)

    def measure(self, questions: Vectors, labels: Labels) -> tuple[float, float]:
        """Mean cross-entropy, and the part answered with the right response."""
        probabilities = self.forward(questions).probabilities
        right = probabilities[np.arange(len(labels)), labels]
        accuracy = (probabilities.argmax(axis=1) == labels).mean()
        return float(-np.log(right + _TINY).mean()), float(accuracy)

    def gradients(self, questions: Vectors, labels: Labels) -> dict[str, Floats]:
        """The gradient of the mean cross-entropy by each parameter."""
        p, f = self.parameters, self.forward(questions)
        scale = np.exp(p["log_scale"])
        by_logit = f.probabilities.copy()
        by_logit[np.arange(len(labels)), labels] -= 1.0
        by_logit /= len(labels)
        by_cosine = by_logit * scale
        by_response = _through_unit(by_cosine.T @ f.units, f.response_units, f.response_lengths)
        by_bent = _through_unit(by_cosine @ f.response_units, f.units, f.lengths)
        return {
            "down": np.asarray(questions.T @ (by_bent @ p["up"].T), dtype=np.float32),
            "up": np.asarray((questions @ p["down"]).T @ by_bent, dtype=np.float32),
            "shift": by_bent.sum(axis=0, dtype=np.float32),
            "responses": by_response,
            "log_scale": np.array([(by_logit * f.cosines).sum() * scale[0]], dtype=np.float32),
        }


def _through_unit(gradient: Floats, units: Floats, lengths: Floats) -> Floats:
    """The gradient before scaling to unit length: what points along the vector has no effect."""
    along = (gradient * units).sum(axis=1, keepdims=True)
    return np.asarray((gradient - along * units) / lengths, dtype=np.float32)

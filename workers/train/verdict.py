"""Grades of several models on the same examples go in here; a table and a decision to promote come out.

Pure: the same grades give the same verdict, because the bootstrap's random numbers follow from the run's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workers.train.grading import GUARDS, OPTIONAL_GUARDS, PRIMARY, mean_grade

RESAMPLES = 10_000
CELLS = 2_000_000
"""Resamples times examples that are held in memory at once."""
TAIL = 2.5
"""Per cent below the interval's lower bound, and above its upper one."""
MAX_REFERENCE_ERRORS = 0.2
"""A model that could not answer so many questions is nothing to compare with."""
MORE_ERRORS = 0.02
FEWEST_PAIRS = 5
"""An optional guard that fewer examples have says nothing."""


@dataclass(frozen=True, slots=True)
class Graded:
    """What one model made of the held-out examples, in the same order for every model.

    Attributes:
        role: ``base``, ``serving``, ``tuned`` or ``checkpoint``.
        grades: grade name → 0…1, for each example; empty where the model gave no answer.
        errors: how many examples it could not answer.
        cost: micro-dollars.
        latency_ms: of each answer.
    """

    model: str
    role: str
    grades: Sequence[Mapping[str, float]]
    errors: int
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    latency_ms: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to promote, why, and the table that says so; `model` is the one to promote, or the tuned one."""

    promote: bool
    reason: str
    table: list[dict[str, Any]]
    model: str = ""


def bootstrap(differences: Sequence[float], seed: int, tail: float = TAIL) -> Interval:
    """The paired bootstrap's percentile interval of a mean (Efron and Tibshirani 1993, chapter 13).

    Args:
        differences: tuned minus reference, one for each example.
        seed: makes it repeatable.
        tail: per cent below the lower bound, and above the upper one.
    """
    values = np.asarray(differences, dtype=np.float64)
    mean = float(values.mean())
    if values.min() == values.max():
        return Interval(mean, mean, mean)  # whatever is drawn
    random = np.random.default_rng(seed)
    n = len(values)
    means = np.empty(RESAMPLES)
    step = max(1, CELLS // n)
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        means[start : start + size] = values[random.integers(0, n, (size, n), dtype=np.int32)].mean(axis=1)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(mean, float(low), float(high))


def choose(candidates: Sequence[Graded], references: Sequence[Graded], margin: float, seed: int) -> Verdict:
    """Decide about a tuned model and its checkpoints: the best of those that may be promoted.

    Each is held to a stricter bound the more there are (Bonferroni): the best of several is better by chance oftener.

    Args:
        candidates: checkpoints, if any, and the tuned model last.
        references: as for `decide`.
        margin: as for `decide`.
        seed: as for `decide`.
    """
    verdicts = [decide(one, references, margin, seed, TAIL / len(candidates)) for one in candidates]
    table = [*verdicts[-1].table[:-1], *(verdict.table[-1] for verdict in verdicts)]
    promoted = [
        (mean_grade(one.grades, PRIMARY), index)
        for index, (one, verdict) in enumerate(zip(candidates, verdicts, strict=True))
        if verdict.promote
    ]
    index = max(promoted)[1] if promoted else len(candidates) - 1
    return replace(verdicts[index], table=table, model=candidates[index].model)


def decide(
    tuned: Graded, references: Sequence[Graded], margin: float, seed: int, tail: float = TAIL
) -> Verdict:
    """Promote only a model that is better than every reference, beyond doubt and in nothing worse.

    Args:
        tuned: the new model.
        references: the base model, and the serving one where it is another.
        margin: what the lower bound of the difference has to clear; above 0.
        seed: for the bootstrap.
        tail: see `bootstrap`.
    """
    rows = [_row(one) for one in (*references, tuned)]
    usable = [one for one in references if one.errors <= MAX_REFERENCE_ERRORS * len(one.grades)]
    if not usable:
        return Verdict(promote=False, reason="no model to compare with could answer", table=rows)
    reasons: list[str] = []
    against: list[dict[str, Any]] = []
    for reference in usable:
        names = (PRIMARY, *GUARDS, *OPTIONAL_GUARDS)
        intervals = {
            name: bootstrap(pairs, seed, tail) for name in names if (pairs := _pairs(tuned, reference, name))
        }
        against.append(
            {"model": reference.model, "role": reference.role, **{n: _shown(i) for n, i in intervals.items()}}
        )
        reasons += _objections(tuned, reference, intervals, margin)
    rows[-1]["against"] = against
    if reasons:
        return Verdict(promote=False, reason="; ".join(reasons), table=rows)
    least = min(one[PRIMARY]["low"] for one in against)
    reason = f"{PRIMARY} is better by at least {least:.3f}, which clears the margin of {margin:.3f}"
    return Verdict(promote=True, reason=reason, table=rows)


def _objections(
    tuned: Graded, reference: Graded, intervals: Mapping[str, Interval], margin: float
) -> list[str]:
    """What speaks against the tuned model, compared with one reference."""
    found: list[str] = []
    main = intervals[PRIMARY]
    if not main.low > margin:
        found.append(
            f"{PRIMARY} against the {reference.role} model: {main.mean:+.3f}, at least {main.low:+.3f}, "
            f"which does not clear the margin of {margin:.3f}"
        )
    found += [
        f"{name} falls by {-intervals[name].mean:.3f} against the {reference.role} model"
        for name in intervals
        if name != PRIMARY and intervals[name].high < 0
    ]
    if tuned.errors > reference.errors + MORE_ERRORS * len(tuned.grades):
        found.append(f"{tuned.errors} answers failed, {reference.errors} of the {reference.role} model's did")
    return found


def _pairs(tuned: Graded, reference: Graded, name: str) -> list[float]:
    """Differences of a grade, example by example; no answer is worth 0, except to a grade that not all answers have."""
    both = list(zip(tuned.grades, reference.grades, strict=True))
    if name not in OPTIONAL_GUARDS:
        return [ours.get(name, 0.0) - theirs.get(name, 0.0) for ours, theirs in both]
    pairs = [ours[name] - theirs[name] for ours, theirs in both if name in ours and name in theirs]
    return pairs if len(pairs) >= FEWEST_PAIRS else []


def _shown(interval: Interval) -> dict[str, float]:
    return {
        "difference": round(interval.mean, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
    }


def _row(one: Graded) -> dict[str, Any]:
    """One line of the table."""
    return {
        "model": one.model,
        "role": one.role,
        "examples": len(one.grades),
        "errors": one.errors,
        **{name: round(mean_grade(one.grades, name), 4) for name in (PRIMARY, *GUARDS)},
        **{
            name: round(mean_grade(having, name), 4)
            for name in OPTIONAL_GUARDS
            if (having := [grades for grades in one.grades if name in grades])
        },
        "tokens_in": one.tokens_in,
        "tokens_out": one.tokens_out,
        "cost_usd": round(one.cost / 1e6, 6),
        "latency_ms": round(float(np.median(one.latency_ms)), 1) if len(one.latency_ms) else None,
    }

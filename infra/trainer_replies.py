"""The raw bytes of a trainer's replies become jobs, events, checkpoints and files here, whatever a server leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from schemas.errors import CallFailed

SUCCEEDED = "succeeded"
ENDED = frozenset({SUCCEEDED, "failed", "cancelled"})
"""Every other status, also one that nobody has heard of, means that the job may go on."""


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """An uploaded file; size in bytes."""

    file_id: str
    name: str
    size: int
    purpose: str


@dataclass(frozen=True, slots=True)
class Job:
    """A fine-tuning job as the trainer describes it.

    Attributes:
        status: as the trainer says; see `ENDED`.
        model: the tuned model, once there is one.
        created_at: Unix seconds.
        error_code: why it failed; None for the empty error objects of healthy jobs.
    """

    job_id: str
    status: str
    base_model: str
    model: str | None
    metadata: Mapping[str, str]
    created_at: int | None
    trained_tokens: int | None
    estimated_finish: datetime | None
    error_code: str | None
    error_message: str | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job; losses where the trainer measured them."""

    provider_id: str
    at: datetime
    level: str
    message: str
    step: int | None
    total_steps: int | None
    train_loss: float | None
    valid_loss: float | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as it was after a step."""

    model: str
    step: int
    valid_loss: float | None


def as_object(body: bytes) -> dict[str, Any]:
    """A reply that must be a JSON object.

    Raises:
        CallFailed: it is not; for a create call that leaves open what happened.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise CallFailed("the trainer's reply is not JSON") from None
    if not isinstance(value, dict):
        raise CallFailed("the trainer's reply is not an object")
    return value


def read_page(value: Any) -> tuple[list[dict[str, Any]], bool]:
    """The items of one page, and whether there may be more."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise CallFailed("the trainer's reply is not a list")
    items = value["data"]
    if not all(isinstance(item, dict) for item in items):
        raise CallFailed("the trainer's list holds something else than objects")
    return items, bool(value.get("has_more"))


def read_file(item: Mapping[str, Any]) -> TrainingFile:
    """A file of a list, or the reply to an upload."""
    return TrainingFile(
        _id(item),
        str(item.get("filename") or ""),
        _int(item.get("bytes")) or 0,
        str(item.get("purpose") or ""),
    )


def read_job(item: Mapping[str, Any]) -> Job:
    """A job of a list, or the reply to a create, retrieve or cancel call."""
    metadata = item.get("metadata")
    error = item.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    status = item.get("status")
    if not isinstance(status, str) or not status:
        raise CallFailed("the trainer's description of a job has no status")
    return Job(
        job_id=_id(item),
        status=status,
        base_model=str(item.get("model") or ""),
        model=_text(item.get("fine_tuned_model")),
        metadata={str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {},
        created_at=_int(item.get("created_at")),
        trained_tokens=_int(item.get("trained_tokens")),
        estimated_finish=_time(item.get("estimated_finish")),
        error_code=_text(code),
        error_message=_text(error.get("message")) if isinstance(error, dict) and code else None,
    )


def read_event(item: Mapping[str, Any]) -> JobEvent:
    """An event of a job."""
    data = item.get("data")
    metrics = data if isinstance(data, dict) else {}
    return JobEvent(
        provider_id=_id(item),
        at=_time(item.get("created_at")) or datetime.now(UTC),
        level=str(item.get("level") or "info"),
        message=str(item.get("message") or "")[:1000],
        step=_int(metrics.get("step")),
        total_steps=_int(metrics.get("total_steps")),
        train_loss=_float(metrics.get("train_loss")),
        valid_loss=_first(metrics, "full_valid_loss", "valid_loss"),
    )


def read_checkpoint(item: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint of a job."""
    metrics = item.get("metrics")
    model = _text(item.get("fine_tuned_model_checkpoint"))
    if model is None:
        raise CallFailed("the trainer's description of a checkpoint has no model")
    return Checkpoint(
        model,
        _int(item.get("step_number")) or 0,
        _first(metrics, "full_valid_loss", "valid_loss") if isinstance(metrics, dict) else None,
    )


def _id(item: Mapping[str, Any]) -> str:
    value = item.get("id")
    if not isinstance(value, str) or not value:
        raise CallFailed("the trainer's reply has no id")
    return value


def _text(value: Any) -> str | None:
    return value[:1000] if isinstance(value, str) and value else None


def _int(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        return None
    return int(value) if abs(value) < 2**63 else None


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e30 else None


def _first(metrics: Mapping[str, Any], *names: str) -> float | None:
    return next((found for name in names if (found := _float(metrics.get(name))) is not None), None)


def _time(value: Any) -> datetime | None:
    seconds = _int(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None and 0 < seconds < 2**33 else None

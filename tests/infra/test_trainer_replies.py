from typing import Any

import pytest

from infra.trainer_replies import as_object, read_checkpoint, read_event, read_file, read_job, read_page
from schemas.errors import CallFailed

JOB = {"id": "ftjob-1", "status": "running"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, None),
        ({}, None),
        ({"code": None, "message": None, "param": None}, None),
        ({"code": "invalid_training_file", "message": "line 3"}, "invalid_training_file"),
        ("text", None),
    ],
)
def test_a_healthy_jobs_error_object_is_none(error: Any, code: str | None) -> None:
    """Servers send empty error objects: only a code is an error."""
    assert code == read_job({**JOB, "error": error}).error_code


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ("succeeded", True),
        ("failed", True),
        ("cancelled", True),
        ("running", False),
        ("paused", False),
        ("pending", False),
        ("never-heard-of", False),
    ],
)
def test_an_unknown_status_is_not_an_end(status: str, ended: bool) -> None:
    """A run is not given up for a word that a server invented."""
    assert ended is read_job({**JOB, "status": status}).has_ended


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b"null"])
def test_what_is_no_object_is_a_failed_call(body: bytes) -> None:
    """A malformed 200 leaves open what happened; it is no crash."""
    with pytest.raises(CallFailed):
        as_object(body)


@pytest.mark.parametrize(
    "item", [{}, {"id": ""}, {"id": 7, "status": "x"}, {"id": "a"}, {"id": "a", "status": None}]
)
def test_a_job_without_id_or_status_is_a_failed_call(item: dict[str, Any]) -> None:
    """Nothing is assumed about a job that cannot be named."""
    with pytest.raises(CallFailed):
        read_job(item)


@pytest.mark.parametrize("value", [None, {}, {"data": None}, {"data": [1]}, []])
def test_what_is_no_list_is_a_failed_call(value: Any) -> None:
    """An unreadable list is not an empty one: that would create a second job."""
    with pytest.raises(CallFailed):
        read_page(value)


def test_odd_numbers_and_times_are_left_out() -> None:
    """NaN, booleans, texts and absurd times do not reach the database."""
    job = read_job(
        {**JOB, "trained_tokens": True, "estimated_finish": 10**18, "created_at": "x", "metadata": [1]}
    )
    assert (None, None, None, {}) == (
        job.trained_tokens,
        job.estimated_finish,
        job.created_at,
        job.metadata,
    )
    event = read_event(
        {"id": "e", "data": {"step": float("nan"), "train_loss": float("inf"), "valid_loss": "x"}}
    )
    assert (None, None, None) == (event.step, event.train_loss, event.valid_loss)


def test_the_full_validation_loss_is_preferred() -> None:
    """At the end of an epoch it says more than a batch's."""
    event = read_event({"id": "e", "data": {"step": 2, "valid_loss": 0.5, "full_valid_loss": 0.25}})
    assert 0.25 == event.valid_loss
    checkpoint = read_checkpoint(
        {"fine_tuned_model_checkpoint": "ft:x", "step_number": 2, "metrics": {"full_valid_loss": 0.25}}
    )
    assert ("ft:x", 2, 0.25) == (checkpoint.model, checkpoint.step, checkpoint.valid_loss)


def test_a_file_keeps_its_name_and_size() -> None:
    """These two say whether it is the one we mean."""
    file = read_file({"id": "f", "filename": "n.jsonl", "bytes": 3, "purpose": "fine-tune"})
    assert ("n.jsonl", 3, "fine-tune") == (file.name, file.size, file.purpose)

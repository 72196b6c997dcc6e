"""The body of a job's creation passes through here, checked, and goes on as the job object that OpenAI documents."""

from __future__ import annotations

import re
import secrets
import time

from infra.local.model.errors import invalid, unsupported, wrong_type
from infra.local.model.fields import Fields
from infra.local.model.store import Doc

_KNOWN = (
    "model",
    "training_file",
    "validation_file",
    "hyperparameters",
    "method",
    "suffix",
    "seed",
    "metadata",
    "integrations",
)
_SUFFIX = re.compile(r"[^a-z0-9-]+")
MOST_METADATA, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
AUTO = "auto"


def read_job(fields: Fields) -> Doc:
    """A new job in its first status.

    Hyperparameters stay "auto" until the file has been read. Keys that begin with an underscore are the
    server's own and are not shown.
    """
    fields.only(_KNOWN)
    if fields.values.get("integrations"):
        raise unsupported("integrations", "The local model server has none.")
    hyperparameters = read_hyperparameters(fields)
    seed = fields.whole("seed", secrets.randbelow(2**31), low=0, high=2**31 - 1)
    return {
        "id": f"ftjob-{secrets.token_hex(12)}",
        "object": "fine_tuning.job",
        "model": fields.text("model"),
        "created_at": int(time.time()),
        "finished_at": None,
        "estimated_finish": None,
        "fine_tuned_model": None,
        "organization_id": "org-local",
        "result_files": [],
        "status": "validating_files",
        "training_file": fields.text("training_file"),
        "validation_file": fields.text("validation_file") if fields.has("validation_file") else None,
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "trained_tokens": None,
        "error": {"code": None, "message": None, "param": None},
        "user_provided_suffix": fields.text("suffix", longest=64) if fields.has("suffix") else None,
        "seed": seed,
        "integrations": [],
        "metadata": read_metadata(fields),
        "usage_metrics": None,
        "shared_with_openai": False,
        "_step": 0,
        "_paused_from": None,
    }


def read_hyperparameters(fields: Fields) -> Doc:
    """From `method`, or from `hyperparameters` as older clients send them."""
    method = fields.inner("method")
    kind = method.choice("type", ("supervised", "dpo", "reinforcement"), "supervised")
    if kind != "supervised":
        raise unsupported("method.type", "The local model server trains with 'supervised' only.")
    given = method.inner("supervised").inner("hyperparameters")
    if not given.values:
        given = fields.inner("hyperparameters")
    given.only(("n_epochs", "batch_size", "learning_rate_multiplier"))
    automatic = {name for name, value in given.values.items() if value in (AUTO, None)}
    chosen = Fields({n: v for n, v in given.values.items() if n not in automatic}, given.name("")[:-1])
    return {
        "n_epochs": chosen.whole("n_epochs", low=1, high=50) if chosen.has("n_epochs") else AUTO,
        "batch_size": chosen.whole("batch_size", low=1, high=256) if chosen.has("batch_size") else AUTO,
        "learning_rate_multiplier": chosen.number("learning_rate_multiplier", low=0.001, high=10.0)
        if chosen.has("learning_rate_multiplier")
        else AUTO,
    }


def read_metadata(fields: Fields) -> dict[str, str] | None:
    """Up to 16 pairs of short strings."""
    if not fields.has("metadata"):
        return None
    pairs = fields.inner("metadata").values
    if len(pairs) > MOST_METADATA:
        raise invalid(
            f"Invalid 'metadata': at most {MOST_METADATA} pairs are allowed.", "metadata", "too_many"
        )
    for key, value in pairs.items():
        if not isinstance(value, str):
            raise wrong_type(f"metadata.{key[:LONGEST_KEY]}", "a string")
        if len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE:
            raise invalid(
                f"Invalid 'metadata': keys have at most {LONGEST_KEY} characters, values {LONGEST_VALUE}.",
                "metadata",
                "string_above_max_length",
            )
    return {key: str(value) for key, value in pairs.items()}


def resolve_auto(hyperparameters: Doc, examples: int) -> Doc:
    """The numbers in place of "auto": twentieths of the data at a time, at least 3 epochs and about 40 steps."""
    batch = hyperparameters["batch_size"]
    batch = max(1, min(256, round(0.05 * examples))) if batch == AUTO else min(batch, examples)
    epochs = hyperparameters["n_epochs"]
    rate = hyperparameters["learning_rate_multiplier"]
    return {
        "n_epochs": max(3, -(-40 // -(-examples // batch))) if epochs == AUTO else epochs,
        "batch_size": batch,
        "learning_rate_multiplier": 1.0 if rate == AUTO else rate,
    }


def tuned_name(job: Doc) -> str:
    """The model's name: `ft:base:organization:suffix:id`."""
    suffix = _SUFFIX.sub("-", (job["user_provided_suffix"] or "").lower()).strip("-")
    return f"ft:{job['model']}:local:{suffix}:{job['id'].removeprefix('ftjob-')[:8]}"


def public(job: Doc) -> Doc:
    """The job as it is shown."""
    return {name: value for name, value in job.items() if not name.startswith("_")}

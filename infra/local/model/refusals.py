"""A fault that refuses a call passes through here and goes on as the error that OpenAI would send."""

from __future__ import annotations

import math
from collections.abc import Mapping

from infra.local.model.errors import ApiError
from infra.local.model.faults import Fault


def refusal(fault: Fault) -> ApiError:
    """The error of a fault of one of `faults.REFUSALS`."""
    status, message, kind, code = _REFUSALS[fault.kind]
    return ApiError(status, fault.message or message, kind=kind, code=code, headers=_wait(fault))


def _wait(fault: Fault) -> dict[str, str]:
    """Retry-After is in whole seconds; the exact wait stands beside it, as OpenAI sends it."""
    if fault.retry_after is None:
        return {}
    headers = {
        "retry-after": str(math.ceil(fault.retry_after)),
        "retry-after-ms": str(round(fault.retry_after * 1000)),
    }
    if fault.kind == "429":
        headers["x-ratelimit-remaining-requests"] = "0"
        headers["x-ratelimit-reset-requests"] = f"{fault.retry_after:g}s"
    return headers


_REFUSALS: Mapping[str, tuple[int, str, str, str | None]] = {
    "400": (400, "Your request was refused.", "invalid_request_error", "invalid_request"),
    "401": (401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    "403": (
        403,
        "This organization is not allowed to use this service.",
        "invalid_request_error",
        "permission_denied",
    ),
    "404": (404, "Not found.", "invalid_request_error", "not_found"),
    "429": (429, "Rate limit reached. Please try again later.", "requests", "rate_limit_exceeded"),
    "500": (500, "The server had an error while processing your request.", "server_error", None),
    "503": (503, "The engine is currently overloaded, please try again later.", "server_error", None),
    "insufficient_quota": (
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    "loading": (429, "The model is still being loaded. Please try again later.", "requests", "model_loading"),
}


def reply_lost() -> ApiError:
    """The error of `500_after`: the work was done, the reply says otherwise."""
    return refusal(Fault(id=0, endpoint="*", kind="500"))

"""What is true of every operation is written into the OpenAPI document here: errors, headers, limits, names.

Routes say what is their own; what layers around them do (keys, rates, sizes, idempotency) is said once, from the same
constants that the layers use.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from producers.gateway.addresses import MAX_ID
from producers.gateway.body import MAX_BATCH, MAX_BODY, MAX_DOCUMENT, MAX_ITEMS, MIB
from producers.gateway.openapi_headers import ANSWERED, parameters, reference
from producers.gateway.problems import MEDIA_TYPE
from schemas.ids import NAME_PATTERN
from schemas.values import MAX_DEPTH

PROBLEM = {"$ref": "#/components/schemas/Problem"}
OPEN = {"/healthz", "/v1/hooks/openai"}
"""Paths that want no key."""
_OPEN_STATUSES = {"/v1/hooks/openai": {400, 401, 404, 413, 415, 500, 503}}
WHY: dict[int, tuple[str, str, str]] = {
    400: ("bad_input", "What was sent breaks a rule; `field` names it.", "question: Field required"),
    401: ("unauthorized", "No API key, or one that is unknown, expired or revoked.", "an API key is required"),
    403: ("forbidden", "The key lacks the scope, or the tenant is suspended.", "this needs a key with the scope train"),
    404: ("not_found", "There is no such thing, or it is another tenant's.", "there is no such document"),
    409: ("conflict", "The thing is in a state that does not allow this.", "the run has ended"),
    410: ("erased", "The answer that was kept under this idempotency key has been erased.", "erased on request"),
    412: ("precondition_failed", "The document is not as `If-Match` or `If-None-Match` says.", "the document has changed"),
    413: ("too_large", "The body is larger than this address takes.", "the body is larger than 1 MiB"),
    415: ("unsupported_media_type", "The body is of another kind, or compressed.", "the body must be JSON"),
    422: ("idempotency_key_reused", "A parameter breaks a rule, or the idempotency key was used for another request.", "limit: out of range"),
    429: ("too_many_requests", "The key's rate or a limit of the tenant is reached.", "the API key may send 600 requests a minute"),
    500: ("internal", "A mistake of ours; the log has it under the request id.", "something unexpected happened"),
    502: ("call_failed", "The model API gave no usable answer.", "the model API ended the call"),
    503: ("unavailable", "A server that we depend on is away, or too much is waiting.", "database cannot be reached"),
}  # fmt: skip
ALSO: dict[int, tuple[str, ...]] = {
    400: ("unknown_type", "bad_request"),
    409: ("id_reused", "sequence_mode", "request_in_progress"),
    422: ("invalid_parameter", "blocked_target", "unreadable", "refused", "permanent"),
    429: ("limit_reached", "budget_exceeded", "rate_limited"),
    503: ("overloaded", "model_away", "pool_paused", "transaction_conflict", "retryable"),
}
"""Further codes under a status; the first one stands in `WHY`."""
LIMITS = f"""\
Every error is a problem document (RFC 9457); `code` is stable, `field` names what is at fault.

Bodies are JSON in UTF-8, at most {MAX_BODY // MIB} MiB (a document {MAX_DOCUMENT // MIB} MiB, a batch {MAX_BATCH // MIB} MiB with at most
{MAX_ITEMS:,} items), nested at most {MAX_DEPTH} levels, with integers within ± 2⁵³ (a larger one is sent as a string) and no key twice in one
object. `Content-Encoding` is refused. Each item of a batch has a result of its own.

Each key has so many requests a minute (`RateLimit`, `RateLimit-Policy`; then 429 with `Retry-After`), each tenant so many documents,
bytes, chunks, examples, endpoints and questions in flight (429, `limit_reached`). While too much is waiting, events get 503 with
`Retry-After`. Another tenant's id and one that does not exist answer alike: 404.
"""
_NAMES = {"collection", "dataset", "template", "alias"}
_CONFLICTS = {
    "publish", "put", "ask", "feedback", "record", "cancel", "pause", "resume", "promote", "rollback",
    "withdraw", "review", "replay", "change", "test",
}  # fmt: skip
"""Operations, by their function, that the state of a thing may forbid."""


def apply(document: dict[str, Any]) -> None:
    """Complete the document that FastAPI and the routes have made."""
    components = document["components"]
    components["headers"] = ANSWERED
    components["responses"] = {f"Problem{status}": _problem(status) for status in WHY}
    components["parameters"] = parameters()
    for path, method, operation in operations(document):
        if path in OPEN:
            operation["security"] = []
            _refer(operation, _OPEN_STATUSES.get(path, set()))
        else:
            _complete(path, method, operation)
        for response in operation["responses"].values():
            if "$ref" not in response:
                response.setdefault("headers", {})["X-Request-Id"] = _header("X-Request-Id")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation: path, method, description."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def statuses(path: str, method: str, operation: dict[str, Any]) -> set[int]:
    """Which errors an operation may answer."""
    name = operation["operationId"].split("_v1_")[0]
    found = {401, 403, 429, 500, 503}
    if operation.get("requestBody"):
        found |= {400, 413, 415}
    if "{" in path:
        found |= {400, 404}
    if any(one.get("in") == "query" for one in operation.get("parameters", [])):
        found |= {400, 404, 422}
    if method in {"post", "put", "patch", "delete"}:
        found |= {400, 422}
    if name in _CONFLICTS or (path == "/v1/webhooks" and method == "post"):
        found |= {409}
    if path.endswith("/documents/{document_id}"):
        # A malformed precondition is 400, one that does not hold 412.
        found |= {409, 412} if method in {"put", "delete"} else set()
    elif takes_key(path, method):
        # The first request is under way, or its answer was erased.
        found |= {409, 410}
    if path.endswith("/search"):
        found |= {502}
    return found


def takes_key(path: str, method: str) -> bool:
    """Whether a request may carry an Idempotency-Key: what is said in full by every PUT and DELETE needs none."""
    if path == "/v1/events" or path.endswith("/search"):
        return False
    return method in {"post", "patch"} or (
        path.endswith("/documents/{document_id}") and method in {"put", "delete"}
    )


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    parameters = operation.setdefault("parameters", [])
    _refer(operation, statuses(path, method, operation))
    for status, response in operation["responses"].items():
        if "$ref" not in response:
            names = _answered(path, method, status)
            response.setdefault("headers", {}).update({name: _header(name) for name in names})
    for parameter in parameters:
        if parameter.get("in") == "path":
            parameter["schema"] |= _path_schema(parameter["name"])
    if takes_key(path, method):
        parameters.append(reference("IdempotencyKey"))
    parameters.append(reference("RequestId"))
    if "requestBody" in operation:
        operation["requestBody"].setdefault("description", f"At most {_limit(path) // MIB} MiB of JSON.")


def _refer(operation: dict[str, Any], wanted: set[int]) -> None:
    for status in sorted(wanted):
        operation["responses"].setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})


def _answered(path: str, method: str, status: str) -> Iterator[str]:
    """The headers of an operation's own answers."""
    yield from ("RateLimit", "RateLimit-Policy")
    is_document = path.endswith("/documents/{document_id}")
    if status in {"201", "202"}:
        yield "Location"
    if status == "202" and is_document:
        yield "Content-Location"
    if status in {"200", "304"} and is_document:
        yield "ETag"
    if path.endswith("/queries") and method == "post" and status in {"200", "202"}:
        yield from ("Location", "Preference-Applied")
    if takes_key(path, method) and not is_document:
        yield "Idempotent-Replayed"


def _limit(path: str) -> int:
    if path.endswith("/documents/{document_id}"):
        return MAX_DOCUMENT
    return MAX_BATCH if path.endswith("/examples") else MAX_BODY


def _path_schema(name: str) -> dict[str, Any]:
    if name in _NAMES:
        return {"pattern": NAME_PATTERN}
    if name == "document_id":
        return {"minLength": 1, "maxLength": MAX_ID}
    return {"format": "uuid"} if name.endswith("_id") else {}


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _problem(status: int) -> dict[str, Any]:
    code, sentence, detail = WHY[status]
    example = {
        "type": f"urn:penstock:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": "01a217943a307bd194796c8fe6a819f7",
    }
    headers = {"X-Request-Id": _header("X-Request-Id")}
    if status in {429, 502, 503}:
        headers["Retry-After"] = _header("Retry-After")
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = _header("WWW-Authenticate")
    codes = ", ".join(f"`{one}`" for one in (code, *ALSO.get(status, ())))
    content = {MEDIA_TYPE: {"schema": PROBLEM, "example": example}}
    return {"description": f"{sentence} Codes: {codes}.", "headers": headers, "content": content}

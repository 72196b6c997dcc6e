"""What is true of every operation is written into the OpenAPI document here: errors, headers, limits, names.

Routes say what is their own; what layers around them do (keys, rates, sizes, idempotency) is said once, from the same
constants that the layers use.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from producers.gateway.addresses import MAX_ID
from producers.gateway.body import MAX_BATCH, MAX_BODY, MAX_DOCUMENT, MIB
from producers.gateway.idempotency import BARE, QUOTED
from producers.gateway.idempotency import HEADER as IDEMPOTENCY_KEY
from producers.gateway.problems import MEDIA_TYPE
from schemas.ids import NAME_PATTERN

PROBLEM = {"$ref": "#/components/schemas/Problem"}
OPEN = {"/healthz", "/v1/hooks/openai"}
"""Paths that want no key."""
WHY: dict[int, tuple[str, str, str]] = {
    400: ("bad_input", "What was sent breaks a rule; `field` names it.", "question: Field required"),
    401: ("unauthorized", "No API key, or one that is unknown, expired or revoked.", "an API key is required"),
    403: ("forbidden", "The key lacks the scope, or the tenant is suspended.", "this needs a key with the scope train"),
    404: ("not_found", "There is no such thing, or it is another tenant's.", "there is no such document"),
    409: ("conflict", "The thing is in a state that does not allow this.", "the run has ended"),
    412: ("precondition_failed", "The document is not as `If-Match` or `If-None-Match` says.", "the document has changed"),
    413: ("too_large", "The body is larger than this address takes.", "the body is larger than 1 MiB"),
    415: ("unsupported_media_type", "The body is of another kind, or compressed.", "the body must be JSON"),
    422: ("idempotency_key_reused", "A parameter breaks a rule, or the idempotency key was used for another request.", "limit: out of range"),
    429: ("too_many_requests", "The key's rate or a limit of the tenant is reached.", "the API key may send 600 requests a minute"),
    500: ("internal", "A mistake of ours; the log has it under the request id.", "something unexpected happened"),
    503: ("unavailable", "A server that we depend on is away, or too much is waiting.", "database cannot be reached"),
}  # fmt: skip
HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"description": "The caller's, or ours; the log has it.", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "Requests (q) in so many seconds (w).", "schema": {"type": "string"}},
    "RateLimit": {"description": "Requests left (r), for so many seconds (t).", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 1}},
    "Location": {"description": "Where what was made can be looked at.", "schema": {"type": "string"}},
    "ETag": {"description": "The version of what is shown.", "required": True, "schema": {"type": "string"}},
}  # fmt: skip
_NAMES = {"collection", "dataset", "template", "alias"}
_CONFLICTS = {
    "publish", "put", "ask", "feedback", "record", "cancel", "pause", "resume", "promote", "rollback",
    "withdraw", "review", "replay", "change", "test",
}  # fmt: skip
"""Operations, by their function, that the state of a thing may forbid."""


def apply(document: dict[str, Any]) -> None:
    """Complete the document that FastAPI and the routes have made."""
    components = document["components"]
    components["headers"] = HEADERS
    components["responses"] = {f"Problem{status}": _problem(status) for status in WHY}
    components["parameters"] = {"IdempotencyKey": _idempotency_key()}
    for path, method, operation in operations(document):
        if path in OPEN:
            operation["security"] = []
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
    if any(one["in"] == "query" for one in operation.get("parameters", [])):
        found |= {400, 404, 422}
    if method in {"post", "put", "patch", "delete"}:
        found |= {400, 422}
    if name in _CONFLICTS or (path == "/v1/webhooks" and method == "post"):
        found |= {409}
    if path.endswith("/documents/{document_id}") and method in {"put", "delete"}:
        found |= {409, 412}
    return found


def takes_key(path: str, method: str) -> bool:
    """Whether a request may carry an Idempotency-Key: what is said in full by every PUT and DELETE needs none."""
    if path == "/v1/events" or path.endswith("/search"):
        return False
    return method in {"post", "patch"} or (
        path.endswith("/documents/{document_id}") and method in {"put", "delete"}
    )


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status in sorted(statuses(path, method, operation)):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
    for status, response in responses.items():
        if "$ref" in response:
            continue
        headers = response.setdefault("headers", {})
        for name in ("RateLimit", "RateLimit-Policy"):
            headers[name] = _header(name)
        if status in {"201", "202"}:
            headers["Location"] = _header("Location")
        if path.endswith("/documents/{document_id}") and status in {"200", "304"}:
            headers["ETag"] = _header("ETag")
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            parameter["schema"] |= _path_schema(parameter["name"])
    if takes_key(path, method):
        operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/IdempotencyKey"})
    if "requestBody" in operation:
        operation["requestBody"].setdefault("description", f"At most {_limit(path) // MIB} MiB of JSON.")


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
    if status in {429, 503}:
        headers["Retry-After"] = _header("Retry-After")
    content = {MEDIA_TYPE: {"schema": PROBLEM, "example": example}}
    return {"description": sentence, "headers": headers, "content": content}


def _idempotency_key() -> dict[str, Any]:
    return {
        "name": IDEMPOTENCY_KEY,
        "in": "header",
        "required": False,
        "description": "The same request with the same key is done once and answered alike (kept for two days).",
        "schema": {"type": "string", "pattern": f"^(?:{BARE}|{QUOTED})$"},
        "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    }

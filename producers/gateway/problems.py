"""Every error passes through here and leaves as a problem document (RFC 9457), also those of the framework."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from infra.database import database_error
from schemas.errors import BadInput, PenstockError, Retryable, Unauthorized

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 2
"""Seconds, where nobody said how long."""
_log = structlog.get_logger("penstock.gateway")


class UnsupportedMediaType(BadInput):
    """The body is of a kind that is not understood here."""

    code = "unsupported_media_type"
    status = 415


class InvalidParameter(BadInput):
    """A parameter in the path or the query breaks a rule."""

    code = "invalid_parameter"
    status = 422


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """A problem document; members that are None are left out.

    The code is the error's in `schemas.errors`, or a word for the HTTP status where the framework refused.
    """
    body = {
        "type": f"urn:penstock:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **more,
    }
    return Response(
        orjson.dumps({name: value for name, value in body.items() if value is not None}),
        status,
        media_type=MEDIA_TYPE,
        headers=dict(headers or {}),
    )


def problem_of(error: PenstockError, request_id: str | None = None, **more: Any) -> Response:
    """One of our own errors as a problem document."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = 'Bearer realm="penstock"'
    wait: float | None = getattr(error, "retry_after", None)
    if wait or isinstance(error, Retryable) or error.status == HTTPStatus.TOO_MANY_REQUESTS:
        headers["retry-after"] = str(max(1, round(wait or RETRY_AFTER)))
    return problem(
        error.status,
        error.code,
        error.title(),
        error.message,
        request_id=request_id,
        headers=headers,
        field=error.field,
        fix=error.fix,
        **more,
    )


def request_id_of(request: Request) -> str | None:
    """The id that `exchange` gave to the request."""
    found = request.scope.get("penstock.request_id")
    return found if isinstance(found, str) else None


async def on_penstock_error(request: Request, error: Exception) -> Response:
    """Our own errors."""
    assert isinstance(error, PenstockError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("gateway.failed", code=error.code, reason=error.message)
    return problem_of(error, request_id_of(request))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The framework's: unknown routes, wrong methods."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.name.lower()
    detail = {
        HTTPStatus.NOT_FOUND: "nothing is served under this address",
        HTTPStatus.METHOD_NOT_ALLOWED: "this address does not allow this method",
    }.get(status, status.description or status.phrase)
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = _allowed(request)
    return problem(status, code, status.phrase, detail, request_id=request_id_of(request), headers=headers)


def _allowed(request: Request) -> str:
    """Every method of an address: the framework names those of the first route that it finds."""
    path = getattr(request.scope.get("route"), "path_format", "")
    return ", ".join(sorted(method.upper() for method in request.app.openapi()["paths"].get(path, ())))


async def on_validation_error(request: Request, error: Exception) -> Response:
    """A parameter in the path or the query that FastAPI refused; its value is not echoed."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else "parameter"
    return problem_of(InvalidParameter(f"{name}: {first['msg']}", field=name), request_id_of(request))


def unexpected(error: BaseException, request_id: str | None) -> Response:
    """What nobody foresaw: its class is logged and nothing of its text, which may quote a caller's data (P8)."""
    frames = traceback.extract_tb(error.__traceback__)
    _log.error(
        "gateway.unexpected",
        error=type(error).__name__,
        at=[f"{frame.name}:{frame.lineno}" for frame in frames[-3:]],
        reason=database_error(error).message,
    )
    return problem(
        500, "internal", "Internal error", "something unexpected happened; the log has it under the request id",
        request_id=request_id,
    )  # fmt: skip

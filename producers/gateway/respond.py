"""Plain values leave here as JSON; FastAPI's own encoder costs more than the rest of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Plain values, dates and UUIDs as JSON."""
    # asyncpg's UUIDs are a subclass, which orjson leaves to `default`.
    return Response(orjson.dumps(value, default=str), status, dict(headers or {}), "application/json")


def no_content() -> Response:
    """Done, and nothing to say."""
    return Response(status_code=204)

"""An exception of the model API's SDK or its HTTP client becomes one of ours here; the engine reads its branch.

    401, no quota, an unusable address      PoolPaused     an operator has to act
    429                                     RateLimited    with the provider's own waiting time
    408, 409, 5xx, time-out, no connection  ModelAway
    unreadable or incomplete reply          CallFailed
    other 4xx, content filter               Refused        keeps the provider's status and code

Messages hold status, code and parameter only: a provider's own text may repeat what was sent to it (promise P8).
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from schemas.errors import (
    CallFailed,
    ModelAway,
    PenstockError,
    PoolPaused,
    RateLimited,
    Refused,
    Unauthorized,
)

MAX_RETRY_AFTER = 24 * 3600.0
"""Seconds; a provider that asks for more is asked again after a day."""

NO_QUOTA = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated"}
)
BUSY = frozenset({"rate_limit_exceeded", "rate_limit_error", "tokens", "requests"})
BROKEN = frozenset(
    {"server_error", "internal_error", "internal_server_error", "overloaded", "engine_overloaded"}
)


@contextmanager
def translated() -> Iterator[None]:
    """Run one call to the model API: what the SDK, its HTTP client or a parser raises leaves as ours.

    A mistake of our own (TypeError, KeyError …) passes unchanged, so that it is not taken for the provider's.

    Raises:
        PenstockError: see `api_error`.
    """
    import httpcore2  # noqa: PLC0415 - only the pools that call a model pay for the import
    import httpx2  # noqa: PLC0415
    import openai  # noqa: PLC0415

    vendors = (
        openai.OpenAIError,
        httpcore2.TimeoutException,
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.ProxyError,
        httpcore2.UnsupportedProtocol,
        httpx2.HTTPError,
        httpx2.InvalidURL,
        httpx2.StreamError,
        ValueError,
        OSError,
    )
    try:
        yield
    except vendors as error:
        raise api_error(error) from None


def api_error(error: BaseException) -> PenstockError:
    """Our error for an exception of `openai`, `httpx2` or the JSON parser.

    Returns:
        The error to raise; one of ours comes back as it is.
    """
    import httpx2  # noqa: PLC0415 - see translated
    import openai  # noqa: PLC0415

    if isinstance(error, PenstockError):
        return error
    if isinstance(error, openai.APIStatusError):
        return status_error(error.status_code, error.code or error.type, error.param, error.response.headers)
    if isinstance(error, httpx2.HTTPStatusError):
        return status_error(error.response.status_code, None, None, error.response.headers)
    if isinstance(error, openai.OpenAIError):
        return _sdk_error(error)
    if isinstance(error, openai.InvalidWebhookSignatureError):
        return Unauthorized("the webhook's signature is not valid")
    return _transport_error(error)


def status_error(
    status: int, code: str | None = None, param: str | None = None, headers: Mapping[str, str] | None = None
) -> PenstockError:
    """Our error for an HTTP status, the provider's error code and the reply's headers."""
    code, param = _word(code), _word(param)
    said = f"{status} {code}" if code else str(status)
    wait = retry_after(headers or {})
    if code in NO_QUOTA:
        return PoolPaused(
            f"the model API has no quota left ({said})",
            fix="raise the quota or pay the bill",
            retry_after=wait,
        )
    if status == 401:
        return PoolPaused(
            f"the model API refused the key ({said})",
            field="OPENAI_API_KEY",
            fix="set a valid key",
            retry_after=wait,
        )
    if status == 429:
        return RateLimited(f"the model API asked us to wait ({said})", retry_after=wait)
    if status in {408, 409} or status >= 500:
        return ModelAway(f"the model API failed ({said})", retry_after=wait)
    where = f", parameter {param}" if param else ""
    return Refused(
        f"the model API refused the request ({said}{where})",
        field=param,
        provider_status=status,
        provider_code=code,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as the reply's headers say: `retry-after-ms`, then `retry-after` as a number or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            parsed = email.utils.parsedate_tz(text)
            if parsed is None:
                continue
            seconds = email.utils.mktime_tz(parsed) - time.time()
        if not math.isnan(seconds):
            return min(max(seconds, 0.0), MAX_RETRY_AFTER)
    return None


def _sdk_error(error: Exception) -> PenstockError:
    """Errors of the SDK that carry no HTTP status."""
    import openai  # noqa: PLC0415 - see translated

    table: tuple[tuple[type[Exception], PenstockError], ...] = (
        (openai.APITimeoutError, ModelAway("the model API did not answer in time")),
        (openai.APIConnectionError, ModelAway("the model API cannot be reached, or cut the connection")),
        (
            openai.ContentFilterFinishReasonError,
            Refused("the provider's content filter refused", provider_code="content_filter"),
        ),
        (openai.LengthFinishReasonError, CallFailed("the model API's reply is incomplete")),
        (openai.APIResponseValidationError, CallFailed("the model API's reply has another shape")),
        (openai.WebSocketConnectionClosedError, ModelAway("the connection to the model API broke")),
        (openai.WebSocketQueueFullError, ModelAway("the connection to the model API is too slow")),
    )
    for kind, ours in table:
        if isinstance(error, kind):
            return ours
    if isinstance(error, openai.APIError):
        return stream_error(error.code or error.type)
    # What is left is raised before anything is sent: no key, no credentials, contradicting arguments.
    return PoolPaused(
        f"the client of the model API cannot be used ({type(error).__name__})", field="OPENAI_API_KEY"
    )


def stream_error(code: str | None) -> PenstockError:
    """Our error for one that the provider reports inside a stream, after its 200."""
    code = _word(code)
    if code in NO_QUOTA:
        return status_error(429, code)
    if code in BUSY:
        return status_error(429, code)
    if code in BROKEN:
        return status_error(500, code)
    return CallFailed(f"the model API broke off with an error ({code or 'no code'})")


def _transport_error(error: BaseException) -> PenstockError:
    """Errors of the HTTP client and what it is built on, the socket and the JSON parser."""
    import httpcore2  # noqa: PLC0415 - see translated
    import httpx2  # noqa: PLC0415

    name = type(error).__name__
    address = PoolPaused(
        f"the model API's address cannot be used ({name})", field="OPENAI_BASE_URL", fix="check the address"
    )
    unreadable = CallFailed(f"the model API's reply cannot be read ({name})")
    late = ModelAway("the model API did not answer in time")
    cut = ModelAway(f"the model API cannot be reached, or cut the connection ({name})")
    table: tuple[tuple[type[BaseException], PenstockError], ...] = (
        (httpcore2.UnsupportedProtocol, address),
        (httpcore2.LocalProtocolError, address),
        (httpcore2.TimeoutException, late),
        (httpcore2.NetworkError, cut),
        (httpcore2.ProtocolError, cut),
        (httpcore2.ProxyError, cut),
        (httpx2.UnsupportedProtocol, address),
        (httpx2.LocalProtocolError, address),
        (httpx2.InvalidURL, address),
        (httpx2.TooManyRedirects, address),
        (httpx2.SSEError, unreadable),
        (httpx2.DecodingError, unreadable),
        (httpx2.TimeoutException, late),
        (TimeoutError, late),
        (httpx2.HTTPError, cut),
        (OSError, ModelAway(f"the model API cannot be reached ({name})")),
        (json.JSONDecodeError, CallFailed("the model API's reply is not JSON")),
    )
    for kind, ours in table:
        if isinstance(error, kind):
            return ours
    return CallFailed(f"the call to the model API had no usable outcome ({name})")


def _word(text: str | None) -> str | None:
    """A provider's code or parameter name, if it is one: a free text there could repeat the input."""
    return text if isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,64}", text) else None

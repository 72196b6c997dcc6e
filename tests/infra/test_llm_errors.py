from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Iterator

import httpcore2
import httpx2
import openai
import pytest

from infra.llm import api_error, translated
from infra.llm_errors import retry_after, stream_error
from schemas.errors import (
    CallFailed,
    ModelAway,
    PenstockError,
    PoolPaused,
    RateLimited,
    Refused,
    Unauthorized,
)

REQUEST = httpx2.Request("POST", "http://model.test/v1/embeddings")
SECRET_TEXT = "the document's own words"
Class = type[PenstockError]


def status_error(status: int, code: str | None = None, **headers: str) -> openai.APIStatusError:
    """What the SDK raises for a reply."""
    body = {"error": {"message": SECRET_TEXT, "code": code, "type": None, "param": "input"}}
    response = httpx2.Response(status, json=body, headers=headers, request=REQUEST)
    client = openai.OpenAI(api_key="k", base_url="http://model.test/v1")
    with client:
        return client._make_status_error_from_response(response)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "invalid_request", Refused),
        (401, "invalid_api_key", PoolPaused),
        (403, "permission_denied", Refused),
        (404, "model_not_found", Refused),
        (408, None, ModelAway),
        (409, None, ModelAway),
        (413, None, Refused),
        (422, None, Refused),
        (429, "rate_limit_exceeded", RateLimited),
        (429, None, RateLimited),
        (429, "insufficient_quota", PoolPaused),
        (403, "insufficient_quota", PoolPaused),
        (500, None, ModelAway),
        (503, None, ModelAway),
        (529, None, ModelAway),
    ],
)
def test_each_status_has_one_meaning(status: int, code: str | None, expected: Class) -> None:
    """The status and the provider's code decide; the provider's own words stay out of the message."""
    error = api_error(status_error(status, code))
    assert type(error) is expected
    assert SECRET_TEXT not in error.message


def test_a_refusal_keeps_what_callers_decide_by() -> None:
    """Status and code of the provider are kept: a missing model is not a malformed request."""
    error = api_error(status_error(404, "model_not_found"))
    assert isinstance(error, Refused)
    assert (404, "model_not_found") == (error.provider_status, error.provider_code)


def test_a_code_that_is_no_code_is_not_repeated() -> None:
    """A server that puts text into `code` does not get it into our errors."""
    assert SECRET_TEXT not in api_error(status_error(400, SECRET_TEXT)).message


def walk(base: type[BaseException]) -> Iterator[type[BaseException]]:
    """A class and everything below it."""
    yield base
    for below in base.__subclasses__():
        yield from walk(below)


VENDOR_CLASSES = sorted(
    {
        *walk(openai.OpenAIError),
        openai.InvalidWebhookSignatureError,
        *walk(httpx2.HTTPError),
        httpx2.InvalidURL,
        httpx2.CookieConflict,
        *walk(httpx2.StreamError),
        *walk(httpcore2.TimeoutException),
        *walk(httpcore2.NetworkError),
        *walk(httpcore2.ProtocolError),
        httpcore2.ProxyError,
        httpcore2.UnsupportedProtocol,
        json.JSONDecodeError,
        ConnectionResetError,
        TimeoutError,
        ValueError,
    },
    key=lambda one: (one.__name__, one.__module__),
)
DECIDED: dict[str, Class] = {
    "APIConnectionError": ModelAway,
    "APITimeoutError": ModelAway,
    "APIResponseValidationError": CallFailed,
    "ContentFilterFinishReasonError": Refused,
    "LengthFinishReasonError": CallFailed,
    "InvalidWebhookSignatureError": Unauthorized,
    "OpenAIError": PoolPaused,
    "ConnectTimeout": ModelAway,
    "ReadTimeout": ModelAway,
    "ConnectError": ModelAway,
    "ReadError": ModelAway,
    "RemoteProtocolError": ModelAway,
    "ProxyError": ModelAway,
    "UnsupportedProtocol": PoolPaused,
    "LocalProtocolError": PoolPaused,
    "InvalidURL": PoolPaused,
    "TooManyRedirects": PoolPaused,
    "DecodingError": CallFailed,
    "JSONDecodeError": CallFailed,
    "ValueError": CallFailed,
    "ConnectionResetError": ModelAway,
    "TimeoutError": ModelAway,
}


@pytest.mark.parametrize("vendor", VENDOR_CLASSES, ids=lambda one: one.__name__)
def test_every_vendor_exception_is_classified(vendor: type[BaseException]) -> None:
    """Whatever class of the SDK, its HTTP client or the parser comes, it gets a leaf of our tree."""
    error = vendor.__new__(vendor)
    BaseException.__init__(error, SECRET_TEXT)
    for name, value in {"status_code": 418, "code": None, "type": None, "param": None}.items():
        if isinstance(error, openai.APIError) and not hasattr(error, name):
            setattr(error, name, value)
    if isinstance(error, openai.APIStatusError | httpx2.HTTPStatusError):
        error.response = httpx2.Response(getattr(error, "status_code", 418), request=REQUEST)
    ours = api_error(error)
    leaves = {PoolPaused, RateLimited, ModelAway, CallFailed, Refused, Unauthorized}
    assert type(ours) in leaves
    assert SECRET_TEXT not in ours.message
    if vendor.__name__ in DECIDED:
        assert type(ours) is DECIDED[vendor.__name__]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nonsense"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, 86_400.0),
    ],
)
def test_the_waiting_time_is_read_from_the_headers(headers: dict[str, str], expected: float | None) -> None:
    """Milliseconds win over seconds, nonsense is no time, and nothing waits longer than a day."""
    assert expected == retry_after(headers)


def test_a_waiting_time_may_be_a_date() -> None:
    """Retry-After as an HTTP date gives the seconds until then."""
    seconds = retry_after({"retry-after": email.utils.formatdate(time.time() + 90, usegmt=True)})
    assert seconds is not None
    assert 80 < seconds <= 90


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("insufficient_quota", PoolPaused),
        ("rate_limit_exceeded", RateLimited),
        ("server_error", ModelAway),
        ("something_new", CallFailed),
        (None, CallFailed),
    ],
)
def test_errors_inside_a_stream_have_the_same_meanings(code: str | None, expected: Class) -> None:
    """An error event after a 200 is told apart by its code."""
    assert type(stream_error(code)) is expected


def test_a_mistake_of_our_own_is_not_taken_for_the_providers() -> None:
    """A TypeError passes through the translation unchanged."""
    with pytest.raises(TypeError), translated():
        raise TypeError


def test_nothing_of_the_vendors_error_is_chained() -> None:
    """The vendor's exception, whose message may repeat the input, is not shown as the cause of ours."""
    with pytest.raises(CallFailed) as caught, translated():
        raise ValueError(SECRET_TEXT)
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None

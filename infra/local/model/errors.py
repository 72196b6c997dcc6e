"""What the server refuses passes through here and goes on as an error body of OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping

import orjson


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: the HTTP status.
        message: one sentence for a human; never text of the request beyond names and numbers.
        kind: OpenAI's `type`.
        param: the parameter at fault.
        code: the machine-readable reason.
        headers: further reply headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The error as OpenAI writes it."""
        inner = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": inner})


def invalid(message: str, param: str | None, code: str | None = None) -> ApiError:
    """A parameter breaks a rule."""
    return ApiError(400, message, param=param, code=code)


def missing(param: str) -> ApiError:
    """A required parameter is absent."""
    return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def wrong_type(param: str, expected: str) -> ApiError:
    """A parameter has another JSON type than it should."""
    return invalid(f"Invalid type for '{param}': expected {expected}.", param, "invalid_type")


def wrong_value(param: str, expected: str) -> ApiError:
    """A parameter has the right type and a value outside its range."""
    return invalid(f"Invalid value for '{param}': {expected}.", param, "invalid_value")


def unsupported(param: str, why: str) -> ApiError:
    """OpenAI may know this, this server does not."""
    return invalid(f"Unsupported parameter: '{param}'. {why}", param, "unsupported_parameter")


def no_such_model(model: str) -> ApiError:
    """The model does not exist, or no longer."""
    return ApiError(
        404, f"The model `{model}` does not exist or you do not have access to it.", code="model_not_found"
    )


def no_such(what: str, object_id: str) -> ApiError:
    """There is no such file, job or checkpoint."""
    return ApiError(404, f"No such {what}: {object_id}", param="id", code="not_found")


def no_key() -> ApiError:
    """The request carries no key."""
    return ApiError(
        401, "You didn't provide an API key. Send it in an Authorization header: Bearer YOUR_KEY.", code=None
    )


def wrong_key() -> ApiError:
    """The request carries another key than the server's."""
    return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

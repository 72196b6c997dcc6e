"""What the gateway refuses comes back as one of these.

PenstockError
├── Unreachable          nobody answered, after all tries
├── NotAnswered          the answer was not there in time; its id is
└── Refused              the gateway answered with a problem document
    ├── BadRequest       400
    ├── Unauthorized     401
    ├── Forbidden        403
    ├── NotFound         404
    ├── Conflict         409
    ├── TooLarge         413
    ├── Unprocessable    422
    ├── RateLimited      429; knows how long to wait
    └── ServerError      500 and above
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PenstockError(Exception):
    """Something did not work."""


class Unreachable(PenstockError):
    """Nobody answered, after all tries."""


class NotAnswered(PenstockError):
    """The answer was not there in time; `query_id` finds it later."""

    def __init__(self, query_id: str) -> None:
        """Remember which question it was."""
        super().__init__(f"question {query_id} is not answered yet")
        self.query_id = query_id


class Refused(PenstockError):
    """The gateway refused.

    Attributes:
        status: the HTTP status.
        code: stable, for programs.
        detail: for people.
        field: which part of the request is at fault, if one is.
        fix: what to do about it.
        request_id: under which the gateway's log has it.
        problem: the whole problem document.
        retry_after: seconds to wait, where the gateway said so.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        """Take what a problem document (RFC 9457) says."""
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail") or problem.get("title") or f"the gateway answered {status}")
        self.field: str | None = problem.get("field")
        self.fix: str | None = problem.get("fix")
        self.request_id: str | None = problem.get("request_id")
        self.problem = dict(problem)
        self.retry_after = retry_after
        where = f" [{self.field}]" if self.field else ""
        super().__init__(f"{self.detail}{where}")


class BadRequest(Refused):
    """The request breaks a rule; `field` says which part."""


class Unauthorized(Refused):
    """The key is missing, unknown, expired or revoked."""


class Forbidden(Refused):
    """The key lacks the scope for this."""


class NotFound(Refused):
    """There is no such thing."""


class Conflict(Refused):
    """The state of the thing does not allow this, or an id stands for other data."""


class TooLarge(Refused):
    """The request is larger than allowed."""


class Unprocessable(Refused):
    """The request can be read but not be done."""


class RateLimited(Refused):
    """Too many requests; `retry_after` says how long to wait."""


class ServerError(Refused):
    """The gateway cannot serve this now."""


_BY_STATUS: dict[int, type[Refused]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Unprocessable,
    429: RateLimited,
}


def refusal(status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> Refused:
    """The exception for an answer."""
    kind = ServerError if status >= 500 else _BY_STATUS.get(status, Refused)
    return kind(status, problem, retry_after)

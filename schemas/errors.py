"""What can go wrong passes through here as one tree; the engine reads its branch, the gateway its status.

    PenstockError
    ├── Retryable                 the same work may succeed later; an attempt is charged
    │   ├── Unavailable           a server we depend on is away or failing
    │   │   └── TransactionConflict   two transactions met; the same one may be run again at once
    │   ├── CallFailed            a call had no usable outcome (cut, malformed, timed out)
    │   └── Uncharged             nothing was wrong with the work: no attempt is charged
    │       ├── ModelAway             the model API is away or failing; also an Unavailable
    │       ├── RateLimited       the model API asked us to wait
    │       ├── BudgetExceeded    the tenant's budget is used up
    │       ├── PoolPaused        wrong key or no quota: an operator has to act
    │       ├── NewerThanWorker   an event of a version that only a newer worker knows
    │       └── LeaseLost         another worker has the work now
    └── Permanent                 trying again cannot help
        ├── BadInput              what the caller sent breaks a rule; names the field
        │   ├── UnknownType
        │   ├── IdReused
        │   ├── SequenceMode
        │   └── TooLarge
        ├── Unreadable            a document cannot be read
        ├── NotFound
        ├── Unauthorized
        ├── Forbidden
        ├── Conflict
        ├── LimitReached
        ├── BlockedTarget         an address that no tenant may make us connect to
        ├── Refused               the provider refuses for good (bad request, closed service)
        └── Misconfigured         a setting is missing or wrong; names the setting

The docstring's first sentence is the title that a caller sees. Messages never carry document text, secrets or
another tenant's ids (promise P8).
"""

from __future__ import annotations

from typing import ClassVar


class PenstockError(Exception):
    """Something in Penstock failed."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str = "", *, field: str | None = None, fix: str | None = None) -> None:
        """Say what failed.

        Args:
            message: one sentence for a human; no document text, no secret.
            field: the input field, header or setting at fault, if there is one.
            fix: what the reader can do about it.
        """
        super().__init__(message or self.title())
        self.message = message or self.title()
        self.field = field
        self.fix = fix

    @classmethod
    def title(cls) -> str:
        """The first sentence of the docstring, without its full stop."""
        return (cls.__doc__ or cls.__name__).split("\n", 1)[0].rstrip(".")

    def as_dict(self) -> dict[str, str]:
        """The error as it is stored in the ledger and shown to its owner."""
        out = {"code": self.code, "message": self.message}
        if self.field is not None:
            out["field"] = self.field
        if self.fix is not None:
            out["fix"] = self.fix
        return out


class Retryable(PenstockError):
    """The same work may succeed later."""

    code = "retryable"
    status = 503

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        fix: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Say what failed and, where the other side said so, how many seconds to wait."""
        super().__init__(message, field=field, fix=fix)
        self.retry_after = retry_after


class Unavailable(Retryable):
    """A server that we depend on is away or failing."""

    code = "unavailable"


class TransactionConflict(Unavailable):
    """Two transactions met and this one was rolled back."""

    code = "transaction_conflict"


class CallFailed(Retryable):
    """A call ended without a usable outcome."""

    code = "call_failed"
    status = 502


class Uncharged(Retryable):
    """The work has to wait; nothing was wrong with it."""

    code = "waiting"


class ModelAway(Uncharged, Unavailable):
    """The model API is away or failing."""

    code = "model_away"
    status = 503


class RateLimited(Uncharged):
    """The model API asked us to wait."""

    code = "rate_limited"
    status = 429


class BudgetExceeded(Uncharged):
    """The budget is used up."""

    code = "budget_exceeded"
    status = 429


class PoolPaused(Uncharged):
    """The pool is paused until an operator acts."""

    code = "pool_paused"


class NewerThanWorker(Uncharged):
    """The event is of a type or version that only a newer worker knows."""

    code = "newer_than_worker"


class LeaseLost(Uncharged):
    """The lease was lost; another worker has the work."""

    code = "lease_lost"


class Permanent(PenstockError):
    """Trying again cannot help."""

    code = "permanent"
    status = 422


class BadInput(Permanent):
    """The input breaks a rule."""

    code = "bad_input"
    status = 400


class UnknownType(BadInput):
    """The event type is not known."""

    code = "unknown_type"


class IdReused(BadInput):
    """The same source and id were used with other data."""

    code = "id_reused"
    status = 409


class SequenceMode(BadInput):
    """The document's first version fixed its sequence mode, and this event uses the other one."""

    code = "sequence_mode"
    status = 409


class TooLarge(BadInput):
    """The input is larger than allowed."""

    code = "too_large"
    status = 413


class Unreadable(Permanent):
    """The document cannot be read."""

    code = "unreadable"

    def __init__(
        self, message: str = "", *, field: str | None = None, fix: str | None = None, page: int | None = None
    ) -> None:
        """Say why, and on which page reading stopped, where the format has pages."""
        super().__init__(message, field=field, fix=fix)
        self.page = page


class NotFound(Permanent):
    """There is no such thing."""

    code = "not_found"
    status = 404


class Unauthorized(Permanent):
    """The API key is missing, unknown, expired or revoked."""

    code = "unauthorized"
    status = 401


class Forbidden(Permanent):
    """The API key lacks the scope for this."""

    code = "forbidden"
    status = 403


class Conflict(Permanent):
    """The thing is in a state that does not allow this."""

    code = "conflict"
    status = 409


class LimitReached(Permanent):
    """A limit of the tenant is reached."""

    code = "limit_reached"
    status = 429

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        fix: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Say which limit, and after how many seconds it may be worth to ask again."""
        super().__init__(message, field=field, fix=fix)
        self.retry_after = retry_after


class BlockedTarget(Permanent):
    """The address may not be connected to."""

    code = "blocked_target"


class Refused(Permanent):
    """The provider refuses this for good."""

    code = "refused"

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        fix: str | None = None,
        provider_status: int | None = None,
        provider_code: str | None = None,
    ) -> None:
        """Say what was refused, and keep the provider's HTTP status and error code: callers decide by them."""
        super().__init__(message, field=field, fix=fix)
        self.provider_status = provider_status
        self.provider_code = provider_code


class Misconfigured(Permanent):
    """A setting is missing or wrong."""

    code = "misconfigured"
    status = 500

"""What every answer has in common: open to further fields; and the problem document."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """An answer's shape; further fields may come in later versions."""

    model_config = ConfigDict(extra="allow")


class Problem(View):
    """A problem document (RFC 9457). `code` is stable; `detail` is for people; `fix` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
    fix: str | None = None
    request_id: str | None = None


class ErrorView(View):
    """Why something failed."""

    code: str
    message: str
    field: str | None = None
    fix: str | None = None

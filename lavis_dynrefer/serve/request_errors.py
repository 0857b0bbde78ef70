"""Errors sent to clients: a status, a type for programs, a message for people."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from lavis_dynrefer.errors import DynReferError, shorten
from lavis_dynrefer.settings import validation_problems

STATUS = {
    "invalid_request": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "unsupported_media_type": 415,
    "unprocessable": 422,
    "client_gone": 499,  # nginx's; nobody reads it
    "internal_error": 500,
    "overloaded": 503,
    "shutting_down": 503,
    "timeout": 504,
}
RETRY_AFTER = 1  # seconds
_MAX_MESSAGE = 1000  # characters
_MAX_PROBLEMS = 3  # that are named


class RequestError(DynReferError):
    """A request that cannot be answered.

    Args:
        kind: one of `STATUS`.
        message: what was expected, what was received, and what to do.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = STATUS[kind]

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        return {"Retry-After": str(RETRY_AFTER)} if self.status == 503 else {}

    def body(self) -> dict[str, Any]:
        """The answer: {"error": {"type", "message"}}."""
        return {"error": {"type": self.kind, "message": shorten(str(self), _MAX_MESSAGE)}}


class ErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str


class ErrorBody(BaseModel):
    """Body of every answer with an error status."""

    error: ErrorDetail


def error_of_status(status: int, detail: str) -> RequestError:
    """The error for a status chosen by the web framework."""
    kinds = {number: kind for kind, number in reversed(list(STATUS.items()))}
    fallback = "internal_error" if status >= 500 else "invalid_request"
    return RequestError(kinds.get(status, fallback), detail)


def error_of_body(error: ValidationError, model: type[BaseModel]) -> RequestError:
    """The error for a body that does not fit its model; names the first problems."""
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return RequestError("invalid_request", f"the request is not valid json: {first['msg']}")
    problems = validation_problems(error, model=model, max_count=_MAX_PROBLEMS)
    if error.error_count() > _MAX_PROBLEMS:
        problems.append(f"and {error.error_count() - _MAX_PROBLEMS:,} more")
    return RequestError("unprocessable", "; ".join(problems))

"""Errors sent to clients: a status, a type for programs, a message for people."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from lavis_dynrefer.errors import DynReferError, InputError, TooLittleMemoryError, shorten
from lavis_dynrefer.settings import validation_problems

STATUS = {
    "invalid_request": 400,
    "other_site": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "unsupported_media_type": 415,
    "unprocessable": 422,
    "client_gone": 499,  # nginx's; nobody reads it
    "internal_error": 500,
    "overloaded": 503,
    "out_of_memory": 503,
    "unhealthy": 503,
    "shutting_down": 503,
    "timeout": 504,
}
RETRY_AFTER = 1  # seconds
INTERNAL = "internal error; see the server log"
_MAX_MESSAGE = 1000  # characters
_MAX_PROBLEMS = 3  # that are named


class RequestError(DynReferError):
    """A request that cannot be answered.

    Args:
        kind: one of `STATUS`.
        message: what was expected, what was received, and what to do.
        code: OpenAI's name of the error, where its clients know one; None means `kind`.
    """

    def __init__(self, kind: str, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code or kind
        self.status = STATUS[kind]

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        return {"Retry-After": str(RETRY_AFTER)} if self.status == 503 else {}

    def body(self) -> dict[str, Any]:
        """The answer, with the fields of OpenAI's errors."""
        message = shorten(str(self), _MAX_MESSAGE)
        error = {"type": self.kind, "message": message, "code": self.code, "param": None}
        return {"error": error}


class ErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str
    code: str
    param: None


class ErrorBody(BaseModel):
    """Body of every answer with an error status."""

    error: ErrorDetail


def error_of_exception(error: BaseException) -> RequestError | None:
    """The error that tells a client what to do; None for an error of the server."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, InputError):
        return RequestError("unprocessable", str(error))
    if isinstance(error, TooLittleMemoryError):
        return RequestError("out_of_memory", str(error))
    return None


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

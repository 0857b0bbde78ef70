"""Errors as clients see them: a status, a type for programs, a message for people."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

STATUS = {
    "invalid_request": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "unsupported_media_type": 415,
    "unprocessable": 422,
    "client_gone": 499,  # as nginx says; nobody is there to read it
    "internal_error": 500,
    "overloaded": 503,
    "shutting_down": 503,
    "timeout": 504,
}
RETRY_AFTER = 1  # seconds
_LONGEST = 1000  # characters of a message
_SHOWN = 3  # mistakes of one body


class RequestError(Exception):
    """A request that gets no answer.

    Args:
        kind: one of `STATUS`.
        message: what was expected, what came, and the cure.
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
        message = str(self)
        if len(message) > _LONGEST:
            message = message[: _LONGEST - 1] + "…"
        return {"error": {"type": self.kind, "message": message}}


class ErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str


class ErrorBody(BaseModel):
    """Every answer that is no success."""

    error: ErrorDetail


def error_of_status(status: int, detail: str) -> RequestError:
    """The error for a status that the web framework chose."""
    kinds = {number: kind for kind, number in reversed(list(STATUS.items()))}
    fallback = "internal_error" if status >= 500 else "invalid_request"
    return RequestError(kinds.get(status, fallback), detail)


def error_of_body(error: ValidationError, fields: Collection[str]) -> RequestError:
    """The error for a body that does not fit its model: its first mistakes, each with its place.

    Args:
        error: what pydantic found.
        fields: the names of the model's fields.
    """
    mistakes = error.errors(include_url=False, include_context=False)
    if mistakes[0]["type"] == "json_invalid":
        return RequestError("invalid_request", f"the request is no json: {mistakes[0]['msg']}")
    told = [_mistake(mistake, fields) for mistake in mistakes[:_SHOWN]]
    if len(mistakes) > _SHOWN:
        told.append(f"and {len(mistakes) - _SHOWN:,} more")
    return RequestError("unprocessable", "; ".join(told))


def _mistake(mistake: Mapping[str, Any], fields: Collection[str]) -> str:
    if mistake["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(mistake["loc"][-1]), fields, n=1)
        cure = f"; did you mean {close[0]}?" if close else ""
        return f"{_place(mistake['loc'])}: there is no such field{cure}"
    if mistake["type"] == "missing":
        return f"{_place(mistake['loc'])}: is missing"
    return f"{_place(mistake['loc'])}: {mistake['msg']}, got {mistake['input']!r:.60}"


def _place(location: Sequence[int | str]) -> str:
    place = ""
    for step in location:
        place += f"[{step}]" if isinstance(step, int) else f".{step}"
    return place.lstrip(".") or "the request"

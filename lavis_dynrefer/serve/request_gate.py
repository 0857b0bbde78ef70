"""Outermost layer: limits the number and size of requests, and logs one line for each."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from urllib.parse import quote

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.serve.request_errors import RequestError
from lavis_dynrefer.serve.service_limits import ServeSettings

logger = logging.getLogger(__name__)

_MAX_PATH = 200  # characters in the log
_MAX_DIGITS = 18  # of a content-length; Python refuses to parse thousands


@dataclass
class Traffic:
    """The requests in progress, shared by the gate and the service.

    Args:
        limits: max_requests POST requests at once, max_body bytes each.
        running: requests in progress.
        closing: new POST requests are refused.
        cut_off: requests that were cancelled by the server.
    """

    limits: ServeSettings
    running: int = 0
    closing: bool = False
    cut_off: int = 0


class RequestGate:
    """ASGI middleware that admits requests, turns failures into json, and writes the log.

    uvicorn's `limit_concurrency` would refuse GET /health too, and answer in plain text without
    Retry-After; it has no limit for bytes.

    Args:
        app: the application inside.
        traffic: counted here.
    """

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic, self._limits = traffic, traffic.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0
        state = scope.setdefault("state", {})  # the endpoints put the number of regions there
        self._traffic.running += 1

        async def send_recording(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._counting(receive), send_recording)
        except (Exception, asyncio.CancelledError) as error:
            self._traffic.cut_off += isinstance(error, asyncio.CancelledError)
            if status:  # half an answer is out; the connection is cut
                raise
            shown = _error_for_client(error)
            response = JSONResponse(shown.body(), shown.status, shown.headers)
            await response(scope, receive, send_recording)
        finally:
            self._traffic.running -= 1
            logger.info(
                "%s %s %d %.1f ms%s",
                scope["method"],
                quote(scope["path"])[:_MAX_PATH],
                status,
                1000 * (time.monotonic() - started),
                f" {state['regions']} regions" if "regions" in state else "",
            )

    def _check(self, scope: Scope) -> None:
        """Refuse a POST request by its headers."""
        if scope["method"] != "POST":
            return
        if self._traffic.closing:
            raise RequestError("shutting_down", "the server is shutting down; ask another one")
        if self._traffic.running > self._limits.max_requests:
            raise RequestError(
                "overloaded",
                f"{self._limits.max_requests} requests are in progress; try again later",
            )
        length = dict(scope["headers"]).get(b"content-length", b"0")
        valid = length.isdigit() and len(length) <= _MAX_DIGITS
        if not valid or int(length) > self._limits.max_body:
            raise self._too_large()

    def _counting(self, receive: Receive) -> Receive:
        """Count the bytes received: a chunked body does not announce its length."""
        received = 0

        async def receive_counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limits.max_body:
                raise self._too_large()
            return message

        return receive_counting

    def _too_large(self) -> RequestError:
        return RequestError(
            "too_large", f"expected a request of at most {self._limits.max_body:,} bytes"
        )


def _error_for_client(error: BaseException) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, InputError):
        return RequestError("unprocessable", str(error))
    if isinstance(error, asyncio.CancelledError):  # by uvicorn, after its graceful-shutdown timeout
        return RequestError("shutting_down", "the server stopped before the request was answered")
    logger.error("a request failed", exc_info=error)
    return RequestError("internal_error", "internal error; see the server log")
